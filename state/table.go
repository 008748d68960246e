package state

import (
	"maps"
	"slices"
	"strings"
)

// A record is what a table holds: immutable, with an id and a revision.
type record interface {
	*Session | *Container | *Launch
	key() string
	revision() int64
}

func (s *Session) key() string       { return s.ID }
func (s *Session) revision() int64   { return s.Rev }
func (c *Container) key() string     { return c.ID }
func (c *Container) revision() int64 { return c.Rev }
func (l *Launch) key() string        { return l.ID }
func (l *Launch) revision() int64    { return l.Rev }

// table keeps records by id and in the order of ids. Its owner locks.
type table[R record] struct {
	byID   map[string]R
	sorted []R
	// unreadable are records that an index names and that could not be had, by their revision
	// there: a broken record is asked for once, not at each relist.
	unreadable map[string]int64
}

func newTable[R record]() table[R] {
	return table[R]{byID: map[string]R{}, unreadable: map[string]int64{}}
}

// has tells whether the record is there at rev or newer; a zero rev is never had.
func (t *table[R]) has(id string, rev int64) bool {
	r, ok := t.byID[id]
	return ok && rev > 0 && r.revision() >= rev
}

func (t *table[R]) find(id string) (int, bool) {
	return slices.BinarySearchFunc(t.sorted, id, func(r R, id string) int { return strings.Compare(r.key(), id) })
}

// put takes the record in unless the one it has is as new, and tells whether it did.
func (t *table[R]) put(r R) bool {
	if t.has(r.key(), r.revision()) {
		return false
	}
	i, found := t.find(r.key())
	if found {
		t.sorted[i] = r
	} else {
		t.sorted = slices.Insert(t.sorted, i, r)
	}
	t.byID[r.key()] = r
	return true
}

// stale lists the ids whose record is missing here or older than the index says.
func (t *table[R]) stale(index map[string]int64) []string {
	var ids []string
	for id, rev := range index {
		if !t.has(id, rev) && t.unreadable[id] != rev {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// arrived tells which of the ids, asked for because of an index, are here now, and notes the
// others as unreadable.
func (t *table[R]) arrived(ids []string, index map[string]int64) []string {
	var here []string
	for _, id := range ids {
		if t.has(id, index[id]) {
			here = append(here, id)
			continue
		}
		t.unreadable[id] = index[id]
	}
	maps.DeleteFunc(t.unreadable, func(id string, rev int64) bool { return index[id] != rev })
	return here
}

// drop removes the records that an index read at seq no longer names, and lists their ids.
// A record newer than the index stays: it was written after that was read.
func (t *table[R]) drop(index map[string]int64, seq int64) []string {
	var ids []string
	t.sorted = slices.DeleteFunc(t.sorted, func(r R) bool {
		if _, listed := index[r.key()]; listed || r.revision() > seq {
			return false
		}
		ids = append(ids, r.key())
		delete(t.byID, r.key())
		return true
	})
	return ids
}

// older gives the id of a record that an index read at seq has under a lower revision than this
// table, although it was that far already; empty: there is none.
func (t *table[R]) older(index map[string]int64, seq int64) string {
	for _, r := range t.sorted {
		if rev, listed := index[r.key()]; listed && rev < r.revision() && r.revision() <= seq {
			return r.key()
		}
	}
	return ""
}

// missing lists the records that an index read at seq should name and does not.
func (t *table[R]) missing(index map[string]int64, seq int64) []R {
	var found []R
	for _, r := range t.sorted {
		if _, listed := index[r.key()]; !listed && r.revision() <= seq {
			found = append(found, r)
		}
	}
	return found
}

func (t *table[R]) remove(id string) {
	if i, found := t.find(id); found {
		t.sorted = slices.Delete(t.sorted, i, i+1)
		delete(t.byID, id)
	}
}

func (t *table[R]) list() []R { return slices.Clone(t.sorted) }

// highest is the highest revision of all.
func (t *table[R]) highest() int64 {
	var most int64
	for _, r := range t.sorted {
		most = max(most, r.revision())
	}
	return most
}
