package plan

import (
	"encoding/json"
	"fmt"
	"reflect"
)

// kinds are the item types by the name under which the journal keeps them.
var kinds = func() map[string]reflect.Type {
	m := map[string]reflect.Type{}
	for _, i := range []Item{
		Objects{}, Settings{}, Service{}, Origin{}, Link{}, Route{}, Rule{}, Table{}, BaseChain{},
		Chain{}, Filter{}, Role{}, Binding{}, Lookup{}, Qdisc{}, TC{}, Loop{}, Forward{},
	} {
		m[TypeOf(i)] = reflect.TypeOf(i)
	}
	return m
}()

// UnmarshalJSON reads a rule. Releases before there were two places for a jump
// wrote "First" of those at the head.
func (f *Filter) UnmarshalJSON(data []byte) error {
	type fields Filter
	old := struct {
		*fields
		First bool
	}{fields: (*fields)(f)}
	if err := json.Unmarshal(data, &old); err != nil {
		return err
	}
	if old.First {
		f.Place = First
	}
	return nil
}

// TypeOf returns the name of an item's type, for Decode.
func TypeOf(i Item) string { return reflect.TypeOf(i).Name() }

// Decode reads an item of the named type from JSON.
func Decode(name string, data []byte) (Item, error) {
	t, found := kinds[name]
	if !found {
		return nil, fmt.Errorf("item of unknown type %q", name)
	}
	v := reflect.New(t)
	if err := json.Unmarshal(data, v.Interface()); err != nil {
		return nil, fmt.Errorf("item of type %s: %w", name, err)
	}
	return v.Elem().Interface().(Item), nil
}
