package deploy

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// TestLambda runs the tests of deploy/lambda that need no service; e2e runs the others.
func TestLambda(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	tests, err := stage.NodeTests(ctx, "lambda", "../report.mjs", os.Environ(), "test/redis.test.mjs")
	for _, one := range tests {
		t.Run(one.Name, func(t *testing.T) {
			if !one.Passed || one.Skipped {
				t.Error(one.Why)
			}
		})
	}
	if err != nil {
		t.Error(err)
	}
}
