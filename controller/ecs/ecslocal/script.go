package ecslocal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Step is one part of a script: from At on, counted from the endpoint's start, these
// conditions hold, and these calls meet what is ordered for them.
type Step struct {
	At         Duration           `json:"at"`
	Conditions Conditions         `json:"conditions"`
	Calls      map[string][]Fault `json:"calls,omitempty"` // by operation, for its next calls in turn
}

// ParseScript reads a script: a JSON array of steps.
func ParseScript(text []byte) ([]Step, error) {
	var steps []Step
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&steps); err != nil {
		return nil, fmt.Errorf("reading a script of ECS's faults: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("reading a script of ECS's faults: something follows the array of steps")
	}
	if err := checkScript(steps); err != nil {
		return nil, fmt.Errorf("reading a script of ECS's faults: %w", err)
	}
	return steps, nil
}

func checkScript(steps []Step) error {
	var errs []error
	for i := range steps {
		if err := steps[i].Conditions.check(); err != nil {
			errs = append(errs, fmt.Errorf("step %d: %w", i+1, err))
		}
		for op := range steps[i].Calls {
			if !slices.Contains(operations(), op) {
				errs = append(errs, fmt.Errorf("step %d: %q is not one of the operations %v", i+1, op, operations()))
			}
		}
		if i > 0 && steps[i].At < steps[i-1].At {
			errs = append(errs, fmt.Errorf("step %d: it is at %s, before the one before it", i+1, time.Duration(steps[i].At)))
		}
	}
	return errors.Join(errs...)
}

// operations are what the endpoint does.
func operations() []string {
	return []string{"RunTask", "StopTask", "ListTasks", "DescribeTasks"}
}

// play takes the steps whose time has come. Call with f.mu held.
func (f *faults) play(now time.Time) {
	for len(f.steps) > 0 && now.Sub(f.began) >= time.Duration(f.steps[0].At) {
		step := f.steps[0]
		f.steps = f.steps[1:]
		f.conditions = step.Conditions
		clear(f.buckets)
		for op, queue := range step.Calls {
			f.queue[op] = append(f.queue[op], queue...)
		}
	}
}

// Duration is written as Go writes durations: "1.5s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}
