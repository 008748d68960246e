// Package deploy holds the tests of what brings the service into AWS: that the template of
// deploy/cdk is what it should be, and that it and the code agree.
package deploy

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// TestCDK compiles deploy/cdk and runs its tests, each of which counts.
func TestCDK(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("cdk/node_modules/aws-cdk-lib/package.json"); err != nil {
		t.Fatalf("%v: run `make setup`, which installs the npm packages of deploy/cdk", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	compile := exec.CommandContext(ctx, "node", "node_modules/typescript/bin/tsc")
	compile.Dir = "cdk"
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("compiling deploy/cdk: %v\n%s", err, out)
	}
	files, err := filepath.Glob("cdk/build/test/*.test.js")
	if err != nil || len(files) == 0 {
		t.Fatalf("deploy/cdk has no tests: %v", err)
	}
	for i, file := range files {
		if files[i], err = filepath.Rel("cdk", file); err != nil {
			t.Fatal(err)
		}
	}
	tests, err := stage.NodeTests(ctx, "cdk", "../report.mjs", os.Environ(), files...)
	for _, one := range tests {
		t.Run(one.Name, func(t *testing.T) {
			switch {
			case one.Skipped:
				t.Skip()
			case !one.Passed:
				t.Error(one.Why)
			}
		})
	}
	if err != nil {
		t.Error(err)
	}
}
