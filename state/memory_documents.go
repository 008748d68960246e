package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// memoryDocument is a key session:{id}.
type memoryDocument struct {
	text  []byte    // never changed in place
	until time.Time // zero: for ever
	alien bool      // not a string at all
}

var errAlien = errors.New("the key does not hold a string")

// SetDocument writes a document as somebody else would, without a hint of ours: watchers
// hear of it only through notifications. Zero ttl means none.
func (m *Memory) SetDocument(id, text string, ttl time.Duration) {
	m.foreign(id, func(now time.Time) {
		doc := memoryDocument{text: []byte(text)}
		if ttl > 0 {
			doc.until = now.Add(ttl)
		}
		m.documents[id] = doc
	})
}

// DeleteDocument removes a document as somebody else would.
func (m *Memory) DeleteDocument(id string) {
	m.foreign(id, func(time.Time) { delete(m.documents, id) })
}

// SpoilDocument puts something that is not a string in a document's place, as somebody
// else might.
func (m *Memory) SpoilDocument(id string) {
	m.foreign(id, func(time.Time) { m.documents[id] = memoryDocument{alien: true} })
}

// ExpireDocuments removes the documents whose time is up, and has watchers notified of
// each. Whether it is called or not, such documents read as missing.
func (m *Memory) ExpireDocuments() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for id, doc := range m.documents {
		if doc.over(now) {
			delete(m.documents, id)
			m.notify(id)
		}
	}
}

// NotifyDocuments turns the notification of foreign writes on, which it is at first, or off.
func (m *Memory) NotifyDocuments(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notified = on
	for w := range m.watchers {
		w.wake()
	}
}

func (m *Memory) foreign(id string, change func(now time.Time)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m.now())
	m.notify(id)
}

func (m *Memory) notify(id string) {
	if m.notified && ValidID(id) {
		m.hint(Hint{Kind: KindDocument, ID: id})
	}
}

// Document reads one document.
func (m *Memory) Document(ctx context.Context, id string) (Document, error) {
	docs, err := m.DocumentsOf(ctx, []string{id})
	if err != nil {
		return Document{}, err
	}
	return docs[0], nil
}

// DocumentsOf reads many documents.
func (m *Memory) DocumentsOf(ctx context.Context, ids []string) ([]Document, error) {
	docs := make([]Document, 0, len(ids))
	err := m.read(ctx, func(time.Time) error {
		now := m.now()
		for _, id := range ids {
			docs = append(docs, m.documents[id].read(id, now))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading %d documents: %w", len(ids), err)
	}
	return docs, nil
}

// read gives the document as it is at that time.
func (d memoryDocument) read(id string, now time.Time) Document {
	doc := Document{ID: id}
	switch {
	case d.over(now):
		doc.Missing = true
		return doc
	case d.alien:
		doc.Err = errAlien
		return doc
	}
	doc.Text = d.text
	if !d.until.IsZero() {
		doc.TTL = d.until.Sub(now)
	}
	doc.Spec, doc.Err = ParseSpec(id, d.text)
	return doc
}

// over tells whether there is no such document at that time.
func (d memoryDocument) over(now time.Time) bool {
	return d.text == nil && !d.alien || !d.until.IsZero() && !now.Before(d.until)
}

// DocumentIDs lists the ids of all documents.
func (m *Memory) DocumentIDs(ctx context.Context) ([]string, error) {
	var ids []string
	err := m.read(ctx, func(time.Time) error {
		now := m.now()
		ids = slices.Sorted(maps.Keys(m.documents))
		ids = slices.DeleteFunc(ids, func(id string) bool { return !ValidID(id) || m.documents[id].over(now) })
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing documents: %w", err)
	}
	return ids, nil
}

// CreateDocument writes a document that must not exist and hints at it.
func (m *Memory) CreateDocument(ctx context.Context, id string, text []byte, ttl time.Duration) error {
	err := m.read(ctx, func(time.Time) error {
		if !ValidID(id) {
			return fmt.Errorf("%w: not an id", ErrInvalid)
		}
		now := m.now()
		if !m.documents[id].over(now) {
			return ErrExists
		}
		doc := memoryDocument{text: append([]byte{}, text...)}
		if ttl > 0 {
			doc.until = now.Add(ttl)
		}
		m.documents[id] = doc
		m.hint(Hint{Kind: KindDocument, ID: id})
		return nil
	})
	if err != nil {
		return fmt.Errorf("creating document %s: %w", id, err)
	}
	return nil
}

// EditDocument replaces the text by what edit makes of it.
func (m *Memory) EditDocument(ctx context.Context, id string, ttl time.Duration, edit func(text []byte) ([]byte, error)) error {
	return m.editDocument(ctx, id, ttl, true, edit)
}

func (m *Memory) editDocument(
	ctx context.Context, id string, ttl time.Duration, hinted bool, edit func(text []byte) ([]byte, error),
) error {
	for range editTries {
		done, err := m.tryEdit(ctx, id, ttl, hinted, edit)
		if err != nil {
			return fmt.Errorf("editing document %s: %w", id, err)
		}
		if done {
			return nil
		}
	}
	return fmt.Errorf("editing document %s: %w", id, conflict("somebody else kept changing it"))
}

// tryEdit reads, edits outside the lock, and writes if nobody was quicker.
func (m *Memory) tryEdit(
	ctx context.Context, id string, ttl time.Duration, hinted bool, edit func(text []byte) ([]byte, error),
) (bool, error) {
	var before memoryDocument
	err := m.read(ctx, func(time.Time) error {
		before = m.documents[id]
		switch {
		case before.over(m.now()):
			return ErrNotFound
		case before.alien:
			return fmt.Errorf("%w: %w", ErrInvalid, errAlien)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	text, err := edit(slices.Clone(before.text))
	if err != nil {
		return false, err
	}
	if text == nil || bytes.Equal(text, before.text) && ttl <= 0 {
		return true, nil
	}
	done := false
	err = m.read(ctx, func(time.Time) error {
		now := m.now()
		current := m.documents[id]
		if current.over(now) {
			return ErrNotFound
		}
		if current.alien || !bytes.Equal(current.text, before.text) {
			return nil
		}
		current.text = slices.Clone(text)
		if ttl > 0 {
			current.until = now.Add(ttl)
		}
		m.documents[id] = current
		if hinted {
			m.hint(Hint{Kind: KindDocument, ID: id})
		} else {
			m.notify(id) // as a server does whoever wrote
		}
		done = true
		return nil
	})
	return done, err
}
