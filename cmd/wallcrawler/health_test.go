package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthTellsByItsError(t *testing.T) {
	ready := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ready" && !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"error":"unavailable","code":"unavailable","message":"draining"}`))
			return
		}
		_, _ = w.Write([]byte(`{"asked":"` + r.URL.Path + `"}`))
	}))
	defer server.Close()
	for _, row := range []struct {
		name  string
		ready bool
		args  []string
		want  string // printed, or told by the error
		fails bool
	}{
		{"ready", true, []string{"--server", server.URL}, "/ready", false},
		{"not ready", false, []string{"--server", server.URL}, "draining", true},
		{"alive though not ready", false, []string{"--server", server.URL + "/", "--alive"}, "/health", false},
		{"nobody there", true, []string{"--server", "http://127.0.0.1:1"}, "is the service running?", true},
	} {
		ready = row.ready
		var out bytes.Buffer
		root := newRoot()
		root.SetOut(&out)
		root.SetArgs(append([]string{"health"}, row.args...))
		err := root.ExecuteContext(t.Context())
		if (err != nil) != row.fails {
			t.Errorf("%s: %v", row.name, err)
		}
		told := out.String()
		if err != nil {
			told = err.Error()
		}
		if !strings.Contains(told, row.want) {
			t.Errorf("%s: it says %q, not %q", row.name, told, row.want)
		}
	}
}

func TestVersionIsForPrograms(t *testing.T) {
	var out bytes.Buffer
	root := newRoot()
	root.SetOut(&out)
	root.SetArgs([]string{"version", "--json"})
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	var v struct{ Version, Go, OS, Arch string }
	if err := json.Unmarshal(out.Bytes(), &v); err != nil || v.Version == "" || v.Go == "" || v.OS == "" || v.Arch == "" {
		t.Errorf("it says %s (%v)", out.String(), err)
	}
}
