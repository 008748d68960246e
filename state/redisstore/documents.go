package redisstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/state"
)

const (
	editTries   = 10  // how often EditDocument reads and tries again
	readBatch   = 500 // keys of one pipeline
	scanBatch   = 1000
	wakeLength  = 10000 // hints kept, about
	missingTTL  = -2    // what PTTL says of a key that is not there
	editBackoff = 2 * time.Millisecond
)

// Document reads one document.
func (s *Store) Document(ctx context.Context, id string) (state.Document, error) {
	docs, err := s.DocumentsOf(ctx, []string{id})
	if err != nil {
		return state.Document{}, err
	}
	return docs[0], nil
}

// DocumentsOf reads many documents.
func (s *Store) DocumentsOf(ctx context.Context, ids []string) ([]state.Document, error) {
	docs := make([]state.Document, 0, len(ids))
	for part := range slices.Chunk(ids, readBatch) {
		pipe := s.client.Pipeline()
		texts, ttls := make([]*redis.StringCmd, len(part)), make([]*redis.DurationCmd, len(part))
		for i, id := range part {
			texts[i] = pipe.Get(ctx, document(id))
			ttls[i] = pipe.PTTL(ctx, document(id))
		}
		// The whole's error is that of its first command: each is looked at by itself.
		_, _ = pipe.Exec(ctx)
		for i, id := range part {
			doc, err := readDocument(id, texts[i], ttls[i])
			if err != nil {
				return nil, fmt.Errorf("reading %d documents: %w", len(ids), answer(err))
			}
			docs = append(docs, doc)
		}
	}
	return docs, nil
}

// readDocument makes a document of the two answers about it.
func readDocument(id string, text *redis.StringCmd, ttl *redis.DurationCmd) (state.Document, error) {
	doc := state.Document{ID: id}
	value, err := text.Bytes()
	switch {
	case errors.Is(err, redis.Nil):
		doc.Missing = true
		return doc, nil
	case wrongType(err):
		doc.Err = errors.New("the key does not hold a string")
		return doc, nil
	case err != nil:
		return doc, err
	}
	left, err := ttl.Result()
	if err != nil {
		return doc, err
	}
	if left == missingTTL {
		doc.Missing = true
		return doc, nil
	}
	doc.Text = value
	doc.TTL = max(0, left)
	doc.Spec, doc.Err = state.ParseSpec(id, value)
	return doc, nil
}

// DocumentIDs lists the ids of all documents.
func (s *Store) DocumentIDs(ctx context.Context) ([]string, error) {
	var mu sync.Mutex
	found := map[string]struct{}{}
	scan := func(ctx context.Context, c redis.Cmdable) error {
		var cursor uint64
		for {
			names, next, err := c.Scan(ctx, cursor, documentPrefix+"*", scanBatch).Result()
			if err != nil {
				return err
			}
			mu.Lock()
			for _, name := range names {
				if id, ok := documentID(name); ok && state.ValidID(id) {
					found[id] = struct{}{}
				}
			}
			mu.Unlock()
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	}
	var err error
	if s.cluster != nil {
		err = s.cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return scan(ctx, c) })
	} else {
		err = scan(ctx, s.client)
	}
	if err != nil {
		return nil, fmt.Errorf("listing documents: %w", answer(err))
	}
	ids := make([]string, 0, len(found))
	for id := range found {
		ids = append(ids, id)
	}
	return ids, nil
}

// CreateDocument writes a document that must not exist and hints at it.
func (s *Store) CreateDocument(ctx context.Context, id string, text []byte, ttl time.Duration) error {
	err := s.createDocument(ctx, id, text, max(0, ttl))
	if err != nil {
		return fmt.Errorf("creating document %s: %w", id, err)
	}
	return nil
}

func (s *Store) createDocument(ctx context.Context, id string, text []byte, ttl time.Duration) error {
	if !state.ValidID(id) {
		return fmt.Errorf("%w: not an id", state.ErrInvalid)
	}
	hint := state.Hint{Kind: state.KindDocument, ID: id}
	if s.cluster != nil {
		// Another slot, perhaps another node: the hint must not overtake the document.
		made, err := s.client.SetNX(ctx, document(id), text, ttl).Result()
		switch {
		case err != nil:
			return answer(err)
		case !made:
			return state.ErrExists
		}
		return s.Wake(ctx, hint)
	}
	pipe := s.client.Pipeline()
	made := pipe.SetNX(ctx, document(id), text, ttl)
	pipe.XAdd(ctx, s.wakeUp(hint))
	if _, err := pipe.Exec(ctx); err != nil {
		return answer(err)
	}
	if !made.Val() {
		return state.ErrExists
	}
	return nil
}

// EditDocument replaces the text by what edit makes of it.
func (s *Store) EditDocument(
	ctx context.Context, id string, ttl time.Duration, edit func(text []byte) ([]byte, error),
) error {
	return s.editDocument(ctx, id, ttl, true, edit)
}

// AnnotateDocument is EditDocument without a hint.
func (s *Store) AnnotateDocument(ctx context.Context, id string, edit func(text []byte) ([]byte, error)) error {
	return s.editDocument(ctx, id, 0, false, edit)
}

func (s *Store) editDocument(
	ctx context.Context, id string, ttl time.Duration, hinted bool, edit func(text []byte) ([]byte, error),
) error {
	for try := range editTries {
		err := s.tryEdit(ctx, id, ttl, hinted, edit)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errChanged) {
			return fmt.Errorf("editing document %s: %w", id, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("editing document %s: %w", id, ctx.Err())
		case <-time.After(rand.N(time.Duration(try+1) * editBackoff)):
		}
	}
	return fmt.Errorf("editing document %s: %w: somebody else kept changing it", id, state.ErrConflict)
}

// tryEdit reads, edits, and writes if nobody was quicker, else errChanged.
func (s *Store) tryEdit(
	ctx context.Context, id string, ttl time.Duration, hinted bool, edit func(text []byte) ([]byte, error),
) error {
	before, err := s.calls.get(ctx, document(id))
	switch {
	case errors.Is(err, redis.Nil):
		return state.ErrNotFound
	case wrongType(err):
		return fmt.Errorf("%w: the key does not hold a string", state.ErrInvalid)
	case err != nil:
		return answer(err)
	}
	after, err := edit(slices.Clone(before))
	if err != nil {
		return err
	}
	if after == nil || bytes.Equal(after, before) && ttl <= 0 {
		return nil
	}
	ms := int64(0)
	if ttl > 0 {
		ms = max(1, ttl.Milliseconds())
	}
	hint := state.Hint{Kind: state.KindDocument, ID: id}
	names := []string{document(id)}
	if hinted && s.cluster == nil {
		names = append(names, s.keys.wake)
	}
	if _, err := s.eval(ctx, "document_swap", names, before, after, ms, hintLine(hint)); err != nil {
		return err
	}
	if hinted && s.cluster != nil {
		return s.Wake(ctx, hint)
	}
	return nil
}
