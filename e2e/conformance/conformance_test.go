//go:build linux

package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// TestTheRelayIsTransparent runs all checks against the program with the race detector. The runner
// itself is built without: it looks at every byte.
func TestTheRelayIsTransparent(t *testing.T) {
	dir := t.TempDir()
	program, runner, file := filepath.Join(dir, "wallcrawler"), filepath.Join(dir, "conformance"), filepath.Join(dir, "report.xml")
	if err := stage.Build(t.Context(), program, "-race"); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.CommandContext(t.Context(), "go", "build", "-o", runner, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the runner: %v\n%s", err, text)
	}
	cmd := exec.CommandContext(t.Context(), runner, "-binary", program, "-junit", file)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it has processes to end
	cmd.WaitDelay = 30 * time.Second
	text, runErr := cmd.CombinedOutput()
	saved, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: %v\n%s", runErr, err, text)
	}
	var all junit
	if err := xml.Unmarshal(saved, &all); err != nil {
		t.Fatal(err)
	}
	ran, failed := 0, 0
	for _, suite := range all.Suites {
		for _, c := range suite.Cases {
			ran++
			id, _, _ := strings.Cut(c.Name, " ")
			t.Run(id, func(t *testing.T) {
				if c.Failure != nil {
					failed++
					t.Errorf("%s: %s", c.Name, c.Failure.Message)
				}
			})
		}
	}
	if want := len(checks()) + len(titles()); ran != want {
		t.Errorf("%d checks ran, want %d", ran, want)
	}
	if want := fmt.Sprintf("%d checks, %d failed", ran, failed); !strings.HasSuffix(strings.TrimSpace(string(text)), want) {
		t.Errorf("the last line is not %q:\n%s", want, text)
	}
	if (runErr != nil) != (failed > 0) {
		t.Errorf("with %d failures it ended with %v", failed, runErr)
	}
}

// The numbers are those of the Autobahn suite: 247 cases of groups 1 to 7 and 10, and 54 of group
// 9, in both directions.
func TestNoCaseIsMissing(t *testing.T) {
	t.Parallel()
	want := map[string]int{"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1}
	seen, sum := map[string]bool{}, 0
	for _, g := range groups() {
		if len(g.cases) != want[g.id] {
			t.Errorf("group %s has %d cases, want %d", g.id, len(g.cases), want[g.id])
		}
		sum += 2 * len(g.cases)
		for _, c := range g.cases {
			if seen[c.id] || !strings.HasPrefix(c.id, g.id+".") {
				t.Errorf("case %s is there twice, or in group %s", c.id, g.id)
			}
			seen[c.id] = true
		}
	}
	if sum != 602 {
		t.Errorf("there are %d checks, want 602", sum)
	}
	if n := len(families()); n != 19 {
		t.Errorf("there are %d families of sequences, want 19", n)
	}
}

// Without anything between them, an endpoint makes of every case what the case says.
func TestTheEndpointsAgreeWithTheCases(t *testing.T) {
	t.Parallel()
	all := []group{{cases: beyond()}}
	all = append(all, groups()...)
	for _, g := range all {
		for _, c := range g.cases {
			for _, server := range []bool{true, false} {
				for _, chop := range []int{whole, perFrame, 1, 7} {
					if c.large && chop != whole {
						continue
					}
					e := endpoint{server: server}
					for _, p := range pieces(c.stream(server), chop) {
						e.take(p)
					}
					if e.verdict != c.want {
						t.Errorf("%s (server: %v%s): %+v, want %+v", c.id, server, how(chop), e.verdict, c.want)
					}
				}
			}
		}
	}
}

func TestUTF8IsWhatGoTakesForIt(t *testing.T) {
	t.Parallel()
	for _, f := range families() {
		for _, s := range f.sequences {
			if utf8.ValidString(s) != f.good {
				t.Errorf("%s: % x", f.title, s)
			}
			var u utf8State
			if got := u.take([]byte(s)) && u.need == 0; got != f.good {
				t.Errorf("%s: % x is %v", f.title, s, got)
			}
		}
	}
}

// A relay that is not transparent is found out. That takes a case for each thing it might do.
func TestWhatIsNotTheSameIsFound(t *testing.T) {
	t.Parallel()
	p := &pair{client: &side{name: "client", ended: true}, backend: &side{name: "backend", ended: true}}
	p.client.sent, p.backend.got = []byte("hello"), []byte("hello")
	p.backend.sent, p.client.got = []byte("bye"), []byte("bye")
	if err := p.same(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(p *pair){
		"a changed byte":  func(p *pair) { p.backend.got = []byte("hallo") },
		"a missing byte":  func(p *pair) { p.client.got = []byte("by") },
		"a byte too many": func(p *pair) { p.client.got = []byte("bye!") },
		"a cut stream":    func(p *pair) { p.backend.err = errors.New("reset") },
		"an endless one":  func(p *pair) { p.client.ended = false },
	} {
		q := &pair{client: &side{name: "client", ended: true, sent: p.client.sent, got: p.client.got}, backend: &side{name: "backend", ended: true, sent: p.backend.sent, got: p.backend.got}}
		spoil(q)
		if q.same() == nil {
			t.Errorf("%s was not found", name)
		}
	}
}

func TestChecksAreChosenByTheirIDs(t *testing.T) {
	t.Parallel()
	for patterns, want := range map[string]int{"*": len(checks()), "7.*": 74, "9.1.6/to-client": 1, "10.1,12.*": 9, "1.1.1": 2} {
		chosen, err := choose(checks(), patterns)
		if err != nil || len(chosen) != want {
			t.Errorf("%q chooses %d checks, want %d: %v", patterns, len(chosen), want, err)
		}
	}
	if _, err := choose(checks(), "99.*"); err == nil {
		t.Error("a pattern that means nothing was accepted")
	}
}
