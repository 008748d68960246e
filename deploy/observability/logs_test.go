package observability

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFieldsOfTheLog: each field that is logged has its meaning, and each meaning is of a field
// that is logged.
func TestFieldsOfTheLog(t *testing.T) {
	calls, err := LogCalls("../..")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	var names []string
	for _, f := range Fields() {
		if known[f.Name] || f.Meaning == "" {
			t.Errorf("%s is listed twice, or means nothing", f.Name)
		}
		known[f.Name] = true
		names = append(names, f.Name)
	}
	if !slices.IsSortedFunc(names, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) }) {
		t.Error("the fields are not listed in order")
	}
	logged := map[string]bool{}
	for _, c := range calls {
		if c.Level == "" && contexts()[c.Where] == "" {
			t.Errorf("%s adds the fields %v to a logger: say in contexts() which messages carry them", c.Where, c.Fields)
		}
		for _, name := range c.Fields {
			logged[name] = true
			if !known[name] {
				t.Errorf("%s: %q is logged with %q, which Fields does not list: use a word that it has, or say what the new one means", c.Where, c.Message, name)
			}
		}
	}
	for name := range known {
		if !logged[name] {
			t.Errorf("%s is listed, and never logged", name)
		}
	}
	if len(calls) < 100 {
		t.Errorf("only %d messages were found: is the code where this looks for it?", len(calls))
	}
}

// TestLogCallsThatCannotBeRead: what would slip past the list is refused.
func TestLogCallsThatCannotBeRead(t *testing.T) {
	for code, want := range map[string]string{
		`log.Info("done", "session", id)`:                        "",
		`x.log.With("container", id).Warn("lost", "error", err)`: "",
		`log.Info("done", name, id)`:                             "no literal text",
		`log.Info("done "+id)`:                                   "no literal text",
		`log.Info("done", slog.String("session", id))`:           "no literal text",
		`s.cfg.Log.LogAttrs(ctx, 0, "done")`:                     "cannot be read",
		`log.With(args...)`:                                      "no literal text",
	} {
		file := filepath.Join(t.TempDir(), "code.go")
		if err := os.WriteFile(file, []byte("package p\nfunc f() { "+code+" }\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		found, err := logCallsOf(file, "code.go")
		switch {
		case want == "" && (err != nil || len(found) == 0 || len(found[0].Fields) != 1):
			t.Errorf("%s: found %+v, %v", code, found, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", code, err, want)
		}
	}
}
