//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// sample is a number of measured times.
type sample []time.Duration

// quantile is the smallest time that a share q of all does not exceed.
func (s sample) quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	i := int(q*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

func (s sample) p50() time.Duration { return s.quantile(0.50) }

// ms shows a time in milliseconds.
func ms(d time.Duration) string {
	v := float64(d) / float64(time.Millisecond)
	if v < 100 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// ratio shows a/b.
func ratio(a, b time.Duration) string {
	if b <= 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", float64(a)/float64(b))
}

// table writes rows as Markdown; the first is the head.
func table(w io.Writer, rows [][]string) {
	for i, row := range rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(w, "|%s\n", strings.Repeat("---|", len(row)))
		}
	}
}

// timesHead and timesRow are the table of plain times.
func timesHead() []string {
	return []string{"what", "n", "p50 ms", "p90 ms", "p99 ms", "max ms", "goal"}
}

func timesRow(what string, s sample, goal string) []string {
	return []string{what, fmt.Sprint(len(s)), ms(s.p50()), ms(s.quantile(0.90)), ms(s.quantile(0.99)), ms(s.quantile(1)), goal}
}
