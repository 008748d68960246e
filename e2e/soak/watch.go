//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// sample is what the service uses at a moment.
type sample struct {
	at time.Duration // since the crowd is there
	stage.Vitals
}

// quantity is what must not grow.
type quantity struct {
	name string
	of   func(sample) float64
	unit float64
	// It comes and goes by so much anyway: this part of its median, and this much besides.
	part, besides float64
}

func quantities() []quantity {
	const mb = 1e6
	return []quantity{
		{"memory, MB", func(s sample) float64 { return float64(s.Resident) }, mb, .03, 3 * mb},
		{"goroutines", func(s sample) float64 { return float64(s.Goroutines) }, 1, .05, 50},
		{"open files", func(s sample) float64 { return float64(s.Files) }, 1, .01, 20},
	}
}

// watch takes samples for a while and prints some of them.
func watch(ctx context.Context, s *stage.Service, c *crowd, length time.Duration, out io.Writer) ([]sample, error) {
	const rows = 20
	every := min(max(length/150, time.Second), 10*time.Second)
	begin, printed := time.Now(), time.Duration(0)
	timer := time.NewTimer(every)
	defer timer.Stop()
	var all []sample
	fmt.Fprintf(out, "%8s %12s %12s %12s %9s %10s %9s\n", "after", "memory, MB", "goroutines", "open files", "clients", "messages", "comings")
	for {
		v, err := s.Vitals(ctx)
		if err != nil {
			return nil, err
		}
		now := sample{time.Since(begin), v}
		all = append(all, now)
		over := now.at >= length
		if now.at >= printed || over {
			fmt.Fprintf(out, "%8s %12.1f %12d %12d %9d %10d %9d\n", now.at.Round(time.Second), float64(v.Resident)/1e6, v.Goroutines, v.Files, v.Clients, c.messages.Load(), c.comings.Load())
			printed += length / rows
		}
		if over {
			return all, nil
		}
		select {
		case <-timer.C:
			timer.Reset(every/2 + rand.N(every)) // out of step with pings
		case <-s.Done:
			return nil, fmt.Errorf("serve has ended: %s", s.Output.Text())
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// verdicts counts what was judged.
type verdicts struct {
	out            io.Writer
	passed, failed int
}

func (v *verdicts) judge(what string, err error) {
	if err != nil {
		v.failed++
		fmt.Fprintf(v.out, "FAIL %s: %v\n", what, err)
		return
	}
	v.passed++
	fmt.Fprintf(v.out, "ok   %s\n", what)
}

// judgeSlope fits a line to the samples after the first third of the time, and fails if it rises
// by more than what comes and goes anyway, and that is no chance: numbers that scatter widely rise by as
// much now and then, on a machine that has more and less else to do.
func (v *verdicts) judgeSlope(q quantity, all []sample, length time.Duration) {
	var x, y []float64
	for _, s := range all {
		if s.at >= length/3 {
			x, y = append(x, s.at.Hours()), append(y, q.of(s))
		}
	}
	slope, at := fit(x, y)
	from, to := at(x[0]), at(x[len(x)-1])
	allowed := q.part*median(y) + q.besides
	fmt.Fprintf(v.out, "%-12s %14.1f %14.1f %+16.1f %+9.1f of %.1f allowed %+8.1f\n", q.name, from/q.unit, to/q.unit, slope/q.unit, (to-from)/q.unit, allowed/q.unit, trend(y))
	if to-from > allowed && trend(y) > sure {
		v.judge(q.name+" do not grow", fmt.Errorf("they grow by %.1f per hour", slope/q.unit))
		return
	}
	v.passed++
}

// fit gives a line through points: the median of the slopes between any two, so that what spikes
// now and then (all pings at once) does not bend it. x must rise.
func fit(x, y []float64) (slope float64, at func(x float64) float64) {
	var slopes []float64
	for i := range x {
		for j := range i {
			slopes = append(slopes, (y[i]-y[j])/(x[i]-x[j]))
		}
	}
	slope = median(slopes)
	rest := make([]float64, len(x))
	for i := range x {
		rest[i] = y[i] - slope*x[i]
	}
	base := median(rest)
	return slope, func(x float64) float64 { return base + slope*x }
}

// sure is the trend that chance shows once in 700 times.
const sure = 3

// trend tells how many standard deviations a series is from one that chance has put in order: how many
// more of its pairs rise than fall (Mann and Kendall).
func trend(y []float64) float64 {
	rising := 0
	for i := range y {
		for j := range i {
			rising += cmp.Compare(y[i], y[j])
		}
	}
	n := float64(len(y))
	return float64(rising) / math.Sqrt(n*(n-1)*(2*n+5)/18)
}

// median is the middle one; 0 of none.
func median(of []float64) float64 {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
