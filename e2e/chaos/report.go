//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// row is one fault and what came of it.
type row struct {
	fault, times     string
	answers, visits  int
	cuts             int
	took             []time.Duration // what the fault's promise is about
	promise          string          // of that
	err              error
	started, expects int // tasks
	peak             int // sessions at once, where visitors leave some behind
}

// report prints as it goes, and sums up.
type report struct {
	out            io.Writer
	passed, failed int
	kills          []time.Duration // from kill -9 of a leader to the next decision, all of them
	graceful       []time.Duration
}

func (r *report) begin(s setting) {
	title := "one redis-server, behind a proxy"
	if s.clustered {
		title = "a Redis Cluster of three masters and three replicas"
	}
	_, _ = fmt.Fprintf(r.out, "\n## %s\n\n%d replicas, %d containers of %d slots, %d clients asking ten times a second, %d visitors\n\n", title,
		replicaCount, minContainers, slots, clientCount, visitors)
	_, _ = fmt.Fprintln(r.out, "| fault | measured | tasks started (wanted) | answers | visits | cut and back | lost | |")
	_, _ = fmt.Fprintln(r.out, "|---|---|---|---|---|---|---|---|")
}

func (r *report) add(x row) {
	verdict := "ok"
	lost := "0"
	if x.err != nil {
		verdict, lost = "**failed**", ""
		r.failed++
	} else {
		r.passed++
	}
	measured := x.promise
	if len(x.took) > 0 {
		measured = fmt.Sprintf("%s: %s", x.promise, spread(x.took))
	}
	wanted := fmt.Sprint(x.expects)
	if x.peak > 0 {
		wanted = fmt.Sprintf("%d to %d, for %d sessions", x.expects, x.expects+extra(x.peak), x.peak)
	}
	_, _ = fmt.Fprintf(r.out, "| %s%s | %s | %d (%s) | %d | %d | %d | %s | %s |\n", x.fault, x.times, measured, x.started, wanted, x.answers, x.visits, x.cuts, lost, verdict)
	if x.err != nil {
		_, _ = fmt.Fprintf(r.out, "\n%s: %v\n\n", x.fault, x.err)
	}
}

// spread is the median and the worst.
func spread(all []time.Duration) string {
	sorted := slices.Sorted(slices.Values(all))
	median, worst := sorted[(len(sorted)-1)/2], sorted[len(sorted)-1]
	if len(sorted) == 1 {
		return worst.Round(10 * time.Millisecond).String()
	}
	return fmt.Sprintf("%s, at worst %s", median.Round(10*time.Millisecond), worst.Round(10*time.Millisecond))
}

// percentile is the smallest that p of them do not exceed.
func percentile(all []time.Duration, p float64) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

func (r *report) finish() {
	var lines []string
	if len(r.kills) > 0 {
		lines = append(lines, fmt.Sprintf("kill -9 of a leader to the next decision: %d times, median %s, p99 %s (promised: 8s)", len(r.kills),
			percentile(r.kills, 0.5).Round(10*time.Millisecond), percentile(r.kills, 0.99).Round(10*time.Millisecond)))
	}
	if len(r.graceful) > 0 {
		lines = append(lines, fmt.Sprintf("SIGTERM of a leader to the next decision: %d times, median %s, at worst %s (promised: 1s)", len(r.graceful),
			percentile(r.graceful, 0.5).Round(10*time.Millisecond), percentile(r.graceful, 0.99).Round(10*time.Millisecond)))
	}
	_, _ = fmt.Fprintf(r.out, "\n%s\n%d passed, %d failed\n", strings.Join(lines, "\n"), r.passed, r.failed)
}
