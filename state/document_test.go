package state_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

func TestSetFieldChangesNothingElse(t *testing.T) {
	cases := []struct{ name, text, want string }{
		{"a field in the middle", `{"a":1,"status":"x","b":[]}`, `{"a":1,"status":"new","b":[]}`},
		{"white space stays", "{ \"status\" :\n\t\"x\" , \"b\" : { } }\n", "{ \"status\" :\n\t\"new\" , \"b\" : { } }\n"},
		{"large numbers stay", `{"n":12345678901234567890.50,"e":1e400,"status":1}`, `{"n":12345678901234567890.50,"e":1e400,"status":"new"}`},
		{"a missing field is added", `{"a":1}`, `{"a":1,"status":"new"}`},
		{"to an empty object", `{}`, `{"status":"new"}`},
		{"to an empty object with white space", "{ \n }", "{\"status\":\"new\"}"},
		{"a field of an inner object is another", `{"x":{"status":1}}`, `{"x":{"status":1},"status":"new"}`},
		{"the last of several counts", `{"status":1,"status":2}`, `{"status":1,"status":"new"}`},
		{"an escaped name is the same name", `{"st\u0061tus":1}`, `{"st\u0061tus":"new"}`},
		{"a value of another type", `{"status":{"a":[1,2]},"z":null}`, `{"status":"new","z":null}`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := state.SetField([]byte(c.text), "status", "new")
			if err != nil || string(got) != c.want {
				t.Fatalf("got  %s, %v\nwant %s", got, err, c.want)
			}
		})
	}
	for _, bad := range []string{``, `[]`, `"x"`, `{`, `{"a":1`, `{"a"}`, `{"a":1,}`, `null`} {
		if got, err := state.SetField([]byte(bad), "status", "new"); err == nil {
			t.Errorf("%q became %s", bad, got)
		}
	}
}

func TestParseSpecRefusesWhatIsNoDocument(t *testing.T) {
	spec, err := state.ParseSpec("s1", []byte(`{"userId":"u","status":"cleaned","timeout":1500,"new":[1]}`))
	if err != nil || spec.SessionID != "s1" || spec.Length() != 1500*time.Millisecond || !spec.Final() {
		t.Errorf("got %+v, %v", spec, err)
	}
	if spec, err = state.ParseSpec("s1", []byte(`{}`)); err != nil || spec.Length() != state.DefaultTimeout || spec.Final() {
		t.Errorf("got %+v, %v", spec, err)
	}
	for _, bad := range []string{``, ` `, `null`, `[]`, `{"status":1}`, `{"sessionId":"s2"}`, `{"timeout":"1"}`, `{"a":`, `{} {}`} {
		if spec, err := state.ParseSpec("s1", []byte(bad)); err == nil {
			t.Errorf("%q became %+v", bad, spec)
		}
	}
}

func FuzzSetField(f *testing.F) {
	for _, seed := range []string{`{}`, `{"status":"x"}`, `{"a":[{}],"status":1 }`, `{"a":1`, "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := state.SetField(text, "status", "new")
		if err != nil {
			return
		}
		var before, after map[string]json.RawMessage
		if json.Unmarshal(text, &before) != nil {
			return // more than one value: the readers refuse it
		}
		if err := json.Unmarshal(got, &after); err != nil {
			t.Fatalf("%q became %q: %v", text, got, err)
		}
		if string(after["status"]) != `"new"` {
			t.Fatalf("%q became %q", text, got)
		}
		delete(before, "status")
		delete(after, "status")
		if len(before) != len(after) {
			t.Fatalf("%q became %q", text, got)
		}
		for name, value := range before {
			if string(after[name]) != string(value) {
				t.Fatalf("field %q: %q became %q", name, value, after[name])
			}
		}
	})
}
