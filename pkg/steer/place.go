package steer

import "fmt"

// Place is how a service of an inspector stands.
type Place uint8

const (
	Held    Place = iota // its slots hold the inspector's listeners
	Emptied              // one of them holds none
	Taken                // one of them holds somebody else's
	Removed              // the kernel side does not know the service
)

// Places returns how services stand that were registered, in their order. It
// costs three small reads for each that is in its place.
func (i *Inspector) Places(services []string) ([]Place, error) {
	places := make([]Place, len(services))
	moved := false
	for n, name := range services {
		id, known := i.seats[name]
		var err error
		if places[n], err = i.place(name, id, known); err != nil {
			return nil, explain(err)
		}
		moved = moved || places[n] == Removed
	}
	if !moved {
		return places, nil
	}
	index, err := readSlots(i.set.maps[bpfMapServices])
	if err != nil {
		return nil, explain(err)
	}
	for n, name := range services {
		id, known := index.byName[name]
		if places[n] != Removed || !known {
			continue
		}
		if places[n], err = i.place(name, id, true); err != nil {
			return nil, explain(err)
		}
	}
	return places, nil
}

// place tells how the service with a number stands.
func (i *Inspector) place(name string, id uint32, known bool) (Place, error) {
	var v bpfService
	if err := i.set.maps[bpfMapServices].Lookup(id, &v); err != nil {
		return Removed, fmt.Errorf("read service number %d: %w", id, err)
	}
	if !known || v.Used == 0 || serviceName(v) != name {
		return Removed, nil
	}
	place := Held
	for n, slot := range [2]uint32{slot4(id), slot6(id)} {
		if !i.fills[n] {
			continue
		}
		there, err := slotCookie(i.set.maps[bpfMapListeners], slot)
		if err != nil {
			return Removed, err
		}
		switch {
		case there == 0 && place == Held:
			place = Emptied
		case there != 0 && !i.ours[there]:
			place = Taken
		}
	}
	return place, nil
}
