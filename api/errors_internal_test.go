package api

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// TestEverySentinelHasAnAnswer reads the sentinels' declarations: a new one without a row
// fails here.
func TestEverySentinelHasAnAnswer(t *testing.T) {
	known := map[string]error{
		"ErrNotFound": state.ErrNotFound, "ErrExists": state.ErrExists, "ErrConflict": state.ErrConflict, "ErrFull": state.ErrFull,
		"ErrThrottled": state.ErrThrottled, "ErrFenced": state.ErrFenced, "ErrRolledBack": state.ErrRolledBack, "ErrEnded": state.ErrEnded, "ErrNotReady": state.ErrNotReady,
		"ErrUnavailable": state.ErrUnavailable, "ErrDraining": state.ErrDraining, "ErrUnauthorized": state.ErrUnauthorized,
		"ErrForbidden": state.ErrForbidden, "ErrInvalid": state.ErrInvalid, "ErrOtherDeployment": state.ErrOtherDeployment,
	}
	file, err := parser.ParseFile(token.NewFileSet(), "../state/errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for _, name := range spec.Names {
			if !strings.HasPrefix(name.Name, "Err") {
				continue
			}
			found++
			sentinel := known[name.Name]
			if sentinel == nil {
				t.Errorf("state.%s: not in this test; give it a row in the table", name.Name)
				continue
			}
			if _, _, ok := explain(fmt.Errorf("doing something: %w", sentinel)); !ok {
				t.Errorf("state.%s has no row in the table", name.Name)
			}
		}
		return true
	})
	if found != len(known) {
		t.Errorf("%d sentinels are declared, %d known here", found, len(known))
	}
}

func TestAnswersOfErrors(t *testing.T) {
	for _, row := range table() {
		a, body, known := explain(fmt.Errorf("at 10.0.0.1:6379: %w", row.err))
		if !known || a.status != row.status || body.Code != row.code || body.Error != row.code {
			t.Errorf("%v: got %+v, %+v", row.err, a, body)
		}
		if body.Message == "" || body.Hint == "" {
			t.Errorf("%v: it does not say what to do: %+v", row.err, body)
		}
		if strings.Contains(body.Message, "10.0.0.1") {
			t.Errorf("%v: the wrapping shows: %q", row.err, body.Message)
		}
		if a.status >= 500 && a.retry == retryAsUsual {
			t.Errorf("%v: SDKs retry %d unless told: say which", row.err, a.status)
		}
		if a.status == http.StatusConflict && a.retry == retryAsUsual {
			t.Errorf("%v: SDKs retry 409 unless told: say which", row.err)
		}
		if a.status == http.StatusServiceUnavailable && a.retry == retryYes && a.after == 0 {
			t.Errorf("%v: 503 without Retry-After", row.err)
		}
	}
	if a, body, known := explain(errors.New("dial tcp 10.0.0.1: boom")); known || a.status != 500 || body.Message != "internal error" {
		t.Errorf("an unknown error: %+v %+v", a, body)
	}
	a, body, _ := explain(fmt.Errorf("x: %w", &state.Refusal{Err: state.ErrEnded, Message: "m", Hint: "h", Reason: state.Idle, RetryAfter: 1500 * time.Millisecond}))
	if a.status != http.StatusGone || body.Message != "m" || body.Hint != "h" || body.Reason != state.Idle || a.after != 1500*time.Millisecond {
		t.Errorf("a refusal: %+v %+v", a, body)
	}
}

func TestEveryPhaseAndReasonHasAStatus(t *testing.T) {
	for _, phase := range state.Phases() {
		for _, reason := range append(state.Reasons(), "") {
			v := view{status: &state.Session{Phase: phase, Reason: reason}}
			got := v.state()
			switch {
			case (phase == state.Pending || phase == state.Bound) && got != statusPending,
				(phase == state.Ready || phase == state.Ending) && got != statusRunning,
				phase == state.Ended && (got == statusPending || got == statusRunning):
				t.Errorf("%s %s: %s", phase, reason, got)
			}
		}
	}
}

func FuzzCreation(f *testing.F) {
	for _, body := range []string{`{}`, `{"timeout":60,"browserSettings":{"viewport":{"width":1,"height":2},"proxy":{"server":"http://a:1"}}}`, `{"proxies":[{}]}`, `[`, `{"userMetadata":{"":{}}}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := parseCreation(body, time.Hour)
		if err != nil {
			if a, _, known := explain(err); !known || a.status != http.StatusBadRequest {
				t.Errorf("%q: %v", body, err)
			}
			return
		}
		if c.timeout < minTimeout || c.timeout > maxTimeout {
			t.Errorf("%q: timeout %v", body, c.timeout)
		}
	})
}
