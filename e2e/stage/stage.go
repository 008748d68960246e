//go:build linux

// Package stage plays the service for programs that measure or prove it: the built program with
// a real Redis, and containers that register and obey, but have no browsers.
package stage

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// Stage is where processes are started.
type Stage struct {
	Binary  string // the program
	Tmp     string // everything that is written is below
	Verbose bool   // show what the started programs print
}

// Build builds the program as it is shipped, unless flags are given.
func Build(ctx context.Context, binary string, flags ...string) error {
	cgo := os.Getenv("CGO_ENABLED")
	if len(flags) == 0 {
		flags, cgo = []string{"-trimpath", "-ldflags", "-s -w"}, "0"
	}
	args := append(append([]string{"build"}, flags...), "-o", binary, "github.com/wallcrawler/wallcrawler/cmd/wallcrawler")
	build := exec.CommandContext(ctx, "go", args...)
	build.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the program: %w\n%s", err, text)
	}
	return nil
}
