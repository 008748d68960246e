package state_test

import (
	"encoding/json"
	"testing"

	"github.com/wallcrawler/wallcrawler/state"
)

// Whatever somebody has put there: an edit of one field is JSON again, and every other field
// is as it was, byte for byte.
func FuzzFields(f *testing.F) {
	for _, seed := range []string{
		`{}`, ` { "a" : [ ] , "b":{"c":1e400} } `, `{"status":"pending","status":"x"}`, `{"containerInfo":{"x":[]}}`,
		`{"containerInfo":null}`, `[]`, `{"a":1}trailing`, `{"\u0073tatus":1}`, "{\"a\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		_ = state.StringField(text, "status")
		for name, edit := range map[string]func() ([]byte, error){
			"status":        func() ([]byte, error) { return state.SetField(text, "status", "ready") },
			"containerInfo": func() ([]byte, error) { return state.SetIn(text, "containerInfo", "taskArn", "arn:x") },
		} {
			out, err := edit()
			if err != nil || !json.Valid(text) {
				continue
			}
			var before, after map[string]json.RawMessage
			if json.Unmarshal(text, &before) != nil || json.Unmarshal(out, &after) != nil {
				t.Fatalf("%q became %q", text, out)
			}
			for field, raw := range before {
				if field != name && string(after[field]) != string(raw) {
					t.Fatalf("field %q of %q became %q", field, text, out)
				}
			}
			delete(before, name)
			if len(after) != len(before)+1 {
				t.Fatalf("%q became %q", text, out)
			}
			if name == "status" && state.StringField(out, "status") != "ready" {
				t.Fatalf("%q became %q", text, out)
			}
		}
	})
}
