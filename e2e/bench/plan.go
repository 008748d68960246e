//go:build linux

package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// planning runs the planner's own benchmark and shows what it says.
func planning(ctx context.Context, b *bench) error {
	b.title("Plan: one round of the pure planner")
	text, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkMake$", "-benchmem", "./controller/plan").CombinedOutput()
	if err != nil {
		return fmt.Errorf("running the benchmark: %w\n%s", err, text)
	}
	rows := [][]string{{"snapshot", "ms", "allocations", "kB", "goal"}}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 8 || !strings.HasPrefix(f[0], "BenchmarkMake/") {
			continue
		}
		name := strings.TrimPrefix(f[0], "BenchmarkMake/")
		if i := strings.LastIndexByte(name, '-'); i > 0 && strings.Trim(name[i+1:], "0123456789") == "" {
			name = name[:i] // the number of processors
		}
		ns, errNS := strconv.ParseFloat(f[2], 64)
		bytes, errBytes := strconv.ParseFloat(f[4], 64)
		if errNS != nil || errBytes != nil {
			return fmt.Errorf("the benchmark printed %q", line)
		}
		rows = append(rows, []string{name + " (sessions × containers)", fmt.Sprintf("%.1f", ns/1e6), f[6], fmt.Sprintf("%.0f", bytes/1e3), "≤ 100 ms"})
	}
	if len(rows) == 1 {
		return fmt.Errorf("the benchmark printed nothing of its own:\n%s", text)
	}
	table(b.out, rows)
	return nil
}
