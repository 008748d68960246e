package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// Pools keeps what concerns the pool as a whole.
type Pools interface {
	// PoolDesired reads pool:desired, which others write; nil if there is none. A value that
	// is no string is ErrInvalid. ParseOverrides makes sense of it.
	PoolDesired(ctx context.Context) ([]byte, error)
	// PoolNotes reads what the leaders have noted of the pool.
	PoolNotes(ctx context.Context) (PoolNotes, error)
	// NotePool notes what u has set (leader).
	NotePool(ctx context.Context, by Authority, u PoolUpdate) error
}

// PoolNotes is what one leader leaves to the next about the pool.
type PoolNotes struct {
	Dialect  int       // the protocol of its containers, as registrations settle it; zero: none in force
	ListedAt time.Time // the store's clock at the start of the last whole listing of documents; zero: unknown
	Obeyed   []byte    // the last good pool:desired while there is one; nil: the configuration is in force
}

// PoolUpdate changes a PoolNotes. What is nil or zero stays as it is.
type PoolUpdate struct {
	ListedAt time.Time
	Obeyed   *string // empty: nothing is obeyed
}

// Overrides are what pool:desired changes of the configuration while it is there. A nil
// field leaves the configuration's.
type Overrides struct {
	Min    *int  // containers
	Max    *int  // containers
	Warm   *int  // slots
	Paused *bool // launch nothing
}

// Bounds of an override: beyond them it is a slip of the pen.
const (
	maxContainers = 10_000
	maxWarmSlots  = 1_000_000
)

// ParseOverrides reads a pool:desired. Fields that are null count as absent and unknown ones
// are passed over; anything else that is wrong refuses the whole, so that it is never obeyed
// by halves.
func ParseOverrides(text []byte) (Overrides, error) {
	var o Overrides
	if trimmed := bytes.TrimSpace(text); len(trimmed) == 0 || trimmed[0] != '{' {
		return Overrides{}, errors.New("it is not a JSON object")
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return Overrides{}, fmt.Errorf("it is not JSON: %w", err)
	}
	var errs []error
	count := func(name string, most int) *int {
		raw, ok := fields[name]
		if !ok || string(raw) == "null" {
			return nil
		}
		var f float64
		if err := json.Unmarshal(raw, &f); err != nil || f != math.Trunc(f) || f < 0 || f > float64(most) {
			errs = append(errs, fmt.Errorf("%s must be a whole number from 0 to %d", name, most))
			return nil
		}
		n := int(f)
		return &n
	}
	o.Min, o.Max, o.Warm = count("min", maxContainers), count("max", maxContainers), count("warm", maxWarmSlots)
	if raw, ok := fields["paused"]; ok && string(raw) != "null" {
		var paused bool
		if err := json.Unmarshal(raw, &paused); err != nil {
			errs = append(errs, errors.New("paused must be true or false"))
		}
		o.Paused = &paused
	}
	if o.Min != nil && o.Max != nil && *o.Min > *o.Max {
		errs = append(errs, fmt.Errorf("min is %d and max only %d", *o.Min, *o.Max))
	}
	if len(errs) == 0 {
		return o, nil
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return Overrides{}, errors.New(strings.Join(texts, "; "))
}

// Over gives the pool as it is to be run. A max below the configured minimum lowers that too
// (that is how everything is stopped); a min above the configured maximum is an error, because
// the maximum is what an operator is ready to pay for: whoever means it names both.
func (o Overrides) Over(p Pool) (Pool, error) {
	if o.Max != nil {
		p.Max = *o.Max
		p.Min = min(p.Min, p.Max)
	}
	if o.Min != nil {
		if *o.Min > p.Max {
			return Pool{}, fmt.Errorf("min is %d and the configured max only %d", *o.Min, p.Max)
		}
		p.Min = *o.Min
	}
	if o.Warm != nil {
		p.WarmSlots = *o.Warm
	}
	if o.Paused != nil {
		p.Paused = *o.Paused
	}
	return p, nil
}
