// Package apply carries a plan out: it asks the hands what is there, compares
// that with what is wanted, and performs the changes one by one.
//
// attach is Run with a plan, detach is Run with none, a dry run is Changes.
// Every creation is written to the journal before it is made, and a failed
// step takes the earlier ones back; Mend puts back single things, also where the
// journal cannot be written. The state of record is the kernel: the
// journal only remembers what the kernel cannot tell, who made a thing that
// others may share and where our things were looked for last time. Beside it is
// the [Memory] of what was attached, for whoever keeps it so. The
// package never touches the kernel itself; only the hands do.
package apply

import (
	"errors"
	"fmt"
	"slices"

	"github.com/portreeve/portreeve/pkg/plan"
)

// Hand holds one part of the kernel: BPF objects, routing, netfilter.
type Hand interface {
	// Name says which part, for messages.
	Name() string
	// Owns reports whether items of this kind are the hand's.
	Owns(plan.Kind) bool
	// Have reads from the kernel the items that carry our identity, and of
	// plan.Shared items all that are present, whoever made them.
	Have() ([]plan.Item, error)
	// Add makes an item; one that is present already is a success.
	Add(plan.Item) error
	// Replace changes an item from one state to another.
	Replace(old, new plan.Item) error
	// Remove takes an item away; one that is absent is a success.
	Remove(plan.Item) error
}

// Bulk is a hand that adds or removes some of its items together, at the cost of one:
// what starts a process for each takes seconds on a busy machine.
type Bulk interface {
	Hand
	// Together reports whether items like this one are added, or removed, together.
	Together(plan.Op, plan.Item) bool
	// All adds or removes items. After an error some of them are, and each is to be tried by
	// itself.
	All(plan.Op, []plan.Item) error
}

// Runner applies plans in one network namespace. The caller holds the Lock.
type Runner struct {
	Hands   []Hand
	Journal *Journal
	Observe func(plan.Change) // called before each change; may be nil

	// Veto, if not nil, is asked before anything is changed by Run. Its error
	// is Run's, and nothing is changed then.
	Veto func([]plan.Change) error

	// Halt, if not nil, is asked before each change of a plan. Its error ends the plan, and
	// those before it are undone.
	Halt func() error
}

// Changes returns what Run would do, and changes nothing.
func (r *Runner) Changes(want []plan.Item) ([]plan.Change, error) {
	changes, _, err := r.changes(want)
	return changes, err
}

// Run makes the kernel hold what is wanted and returns the changes made. When
// a change fails, those before it are undone, and the error says both what
// failed and what could not be undone.
func (r *Runner) Run(want []plan.Item) ([]plan.Change, error) {
	have, err := r.have()
	if err != nil {
		return nil, err
	}
	return r.run(have, want)
}

func (r *Runner) run(have, want []plan.Item) ([]plan.Change, error) {
	have, ours := r.claim(have, want)
	changes := plan.Diff(have, ours)
	if r.Veto != nil {
		if err := r.Veto(changes); err != nil {
			return nil, err
		}
	}
	if err := r.performAll(changes); err != nil {
		return nil, err
	}
	return changes, r.Journal.Settle(ours)
}

// performAll carries changes out, all or none.
func (r *Runner) performAll(changes []plan.Change) error {
	for i := 0; i < len(changes); {
		if r.Halt != nil {
			if err := r.Halt(); err != nil {
				return errors.Join(err, r.undo(changes[:i]))
			}
		}
		group := r.group(changes[i:])
		i += len(group)
		if r.together(group) {
			continue
		}
		for _, c := range group {
			if err := r.perform(c); err != nil {
				return errors.Join(err, r.undo(changes[:i])) // those behind it may have been made together
			}
		}
	}
	return nil
}

// group returns the changes that come first and can be made together; one, where that
// cannot.
func (r *Runner) group(changes []plan.Change) []plan.Change {
	h, err := r.hand(changes[0].Item)
	bulk, is := h.(Bulk)
	if err != nil || !is {
		return changes[:1]
	}
	n := 0
	for n < len(changes) && changes[n].Op == changes[0].Op && bulk.Owns(changes[n].Item.Kind()) && bulk.Together(changes[n].Op, changes[n].Item) {
		n++
	}
	return changes[:max(n, 1)]
}

// together makes the changes of a group at once, and reports false where each has to be
// made by itself.
func (r *Runner) together(group []plan.Change) bool {
	if len(group) < 2 {
		return false
	}
	op := group[0].Op
	items := make([]plan.Item, len(group))
	for n, c := range group {
		if r.Observe != nil {
			r.Observe(c)
		}
		if items[n] = c.Item; op != plan.Remove && r.Journal.Intend(c.Item) != nil {
			return false
		}
	}
	h, err := r.hand(items[0])
	if err != nil || h.(Bulk).All(op, items) != nil {
		return false
	}
	for _, c := range group {
		if op == plan.Remove {
			r.Journal.Forget(c.Item)
		}
	}
	return true
}

// Prepare makes of what is wanted all that moves no traffic by itself, and
// removes nothing: what is steered now goes on as it is, and an inspector that
// runs goes on with it. Another can then take the slots of services that are new,
// before Move leads connections to them.
func (r *Runner) Prepare(want []plan.Item) error {
	have, err := r.have()
	if err != nil {
		return err
	}
	if want, _, err = plan.Beside(have, want); err != nil {
		return err
	}
	have, want = r.claim(have, want)
	inert := slices.DeleteFunc(want, func(i plan.Item) bool { return i.Kind() >= plan.KindBinding })
	changes := slices.DeleteFunc(plan.Diff(have, inert), func(c plan.Change) bool {
		return c.Op == plan.Remove && !slices.Contains(inert, c.Item) // what is wanted is removed to be made anew
	})
	return r.performAll(changes)
}

// Move is Run for the time in which one inspector takes over from another: new
// connections go where the plan leads them, and what those of the older one
// rely on stays. It reports whether there is any such thing, so that Run has to
// wait until the older one has ended.
func (r *Runner) Move(want []plan.Item) (relied bool, err error) {
	have, err := r.have()
	if err != nil {
		return false, err
	}
	both, relied, err := plan.Beside(have, want)
	if err != nil {
		return false, err
	}
	_, err = r.run(have, both)
	return relied, err
}

// Mend carries out changes that Changes returned, and calls done with each and how that
// went: who puts back what was taken away does not undo one thing because another failed.
// Where the journal cannot be written, as on a disk that is full, only what others may share
// has to wait: the rest is found again by what it is.
func (r *Runner) Mend(changes []plan.Change, done func(plan.Change, error)) {
	for len(changes) > 0 {
		group := r.group(changes)
		changes = changes[len(group):]
		all := r.together(group)
		for _, c := range group {
			var err error
			if !all {
				err = r.mend(c)
			}
			done(c, err)
		}
	}
}

func (r *Runner) mend(c plan.Change) error {
	if _, shared := c.Item.(plan.Shared); shared || c.Op == plan.Remove || r.Journal.Intend(c.Item) == nil {
		return r.perform(c)
	}
	h, err := r.hand(c.Item)
	if err != nil {
		return err
	}
	return put(h, c)
}

// Clear removes everything of ours and returns what it removed. It tries
// every step even when one fails, and needs no configuration.
func (r *Runner) Clear() ([]plan.Change, error) {
	have, failed := r.have()
	have, _ = r.claim(have, nil)
	var done []plan.Change
	for changes := plan.Diff(have, nil); len(changes) > 0; {
		group := r.group(changes)
		changes = changes[len(group):]
		all := r.together(group)
		for _, c := range group {
			if !all {
				if err := r.perform(c); err != nil {
					failed = errors.Join(failed, err)
					continue
				}
			}
			done = append(done, c)
		}
	}
	if failed != nil {
		return done, errors.Join(failed, r.Journal.Stale())
	}
	return done, r.Journal.Remove()
}

// Have returns our items as the kernel holds them, and those that the journal
// misses there: what was applied and has been lost since.
func (r *Runner) Have() (have, lost []plan.Item, err error) {
	all, err := r.have()
	have, _ = r.claim(all, nil)
	present := map[string]bool{}
	for _, i := range have {
		present[i.Key()] = true
	}
	for _, i := range r.Journal.Items() {
		if !present[i.Key()] {
			lost = append(lost, i)
		}
	}
	return have, lost, err
}

// Present returns those of the items that the kernel holds.
func (r *Runner) Present(items []plan.Item) ([]plan.Item, error) {
	have, err := r.have()
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for _, i := range have {
		there[keyOf(i)] = true
	}
	return slices.DeleteFunc(slices.Clone(items), func(i plan.Item) bool { return !there[keyOf(i)] }), nil
}

// changes returns what leads to want, and what of want will then be ours.
func (r *Runner) changes(want []plan.Item) (_ []plan.Change, ours []plan.Item, _ error) {
	have, err := r.have()
	if err != nil {
		return nil, nil, err
	}
	have, ours = r.claim(have, want)
	return plan.Diff(have, ours), ours, nil
}

// have asks every hand. An error of one does not hide what the others found.
func (r *Runner) have() ([]plan.Item, error) {
	var items []plan.Item
	var failed error
	for _, h := range r.Hands {
		found, err := h.Have()
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("read %s: %w", h.Name(), err))
		}
		items = append(items, found...)
	}
	return items, failed
}

// claim leaves in have only what is ours: of shared items, those that the
// journal says we made. A shared item that somebody else made is used as it
// is, so it leaves want too.
func (r *Runner) claim(have, want []plan.Item) (ours, ask []plan.Item) {
	foreign := map[string]bool{}
	ours = slices.DeleteFunc(slices.Clone(have), func(i plan.Item) bool {
		if _, shared := i.(plan.Shared); !shared || r.Journal.Holds(i) {
			return false
		}
		foreign[i.Key()] = true
		return true
	})
	ask = slices.DeleteFunc(slices.Clone(want), func(i plan.Item) bool { return foreign[i.Key()] })
	return ours, ask
}

// perform carries out one change. The journal knows of an item before it is
// made and forgets it only after it is gone, so that a crash between the two
// leaves nothing that detach cannot find.
func (r *Runner) perform(c plan.Change) error {
	if r.Observe != nil {
		r.Observe(c)
	}
	h, err := r.hand(c.Item)
	if err != nil {
		return err
	}
	if c.Op == plan.Remove {
		if err := h.Remove(c.Item); err != nil {
			return fmt.Errorf("remove %s: %w", c.Item, err)
		}
		r.Journal.Forget(c.Item)
		return nil
	}
	if err := r.Journal.Intend(c.Item); err != nil {
		return err
	}
	return put(h, c)
}

// put makes a change's item.
func put(h Hand, c plan.Change) (err error) {
	if c.Op == plan.Replace {
		err = h.Replace(c.Old, c.Item)
	} else {
		err = h.Add(c.Item)
	}
	if err != nil {
		return fmt.Errorf("install %s: %w", c.Item, err)
	}
	return nil
}

// undo takes changes back, last first; the last of them failed and may be
// half done.
func (r *Runner) undo(changes []plan.Change) error {
	var failed error
	for _, c := range slices.Backward(changes) {
		if err := r.perform(c.Undo()); err != nil {
			failed = errors.Join(failed, fmt.Errorf("undo: %w", err))
		}
	}
	if failed == nil && len(r.Journal.Items()) == 0 {
		return r.Journal.Remove()
	}
	return errors.Join(failed, r.Journal.Stale())
}

func (r *Runner) hand(i plan.Item) (Hand, error) {
	for _, h := range r.Hands {
		if h.Owns(i.Kind()) {
			return h, nil
		}
	}
	return nil, fmt.Errorf("no hand for %s", i)
}
