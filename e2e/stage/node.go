package stage

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// NodeTest is what became of one test of Node's test runner.
type NodeTest struct {
	Name            string
	Passed, Skipped bool
	Why             string // it has failed
}

// NodeTests runs files of tests with Node's test runner. reporter is the path of
// deploy/report.mjs from dir. That tests fail is no error; that none has run is one.
func NodeTests(ctx context.Context, dir, reporter string, env []string, files ...string) ([]NodeTest, error) {
	cmd := exec.CommandContext(ctx, "node", append([]string{"--test", "--test-reporter=" + reporter}, files...)...)
	cmd.Dir, cmd.Env = dir, env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// The runner's children hold the pipes a little longer.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	var tests []NodeTest
	failed := false
	for lines := bufio.NewScanner(&stdout); lines.Scan(); {
		var one NodeTest
		if json.Unmarshal(lines.Bytes(), &one) == nil && one.Name != "" {
			tests, failed = append(tests, one), failed || !one.Passed
		}
	}
	if _, exited := errors.AsType[*exec.ExitError](err); exited && failed && ctx.Err() == nil {
		err = nil // it is told by the tests
	}
	if err == nil && len(tests) == 0 {
		err = errors.New("no test has run")
	}
	if err != nil {
		return tests, fmt.Errorf("node --test in %s: %w\n%s%s", dir, err, stdout.Bytes(), stderr.Bytes())
	}
	return tests, nil
}
