package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

const (
	module = "github.com/wallcrawler/wallcrawler"
	// patience bounds one run of a world or of a test: a bug may make either go on for ever.
	patience = 5 * time.Minute
)

// edit is one place of a bug: text that stands exactly once in a file, and what becomes of it.
type edit struct{ file, was, is string }

// mutant is a bug.
type mutant struct {
	name  string
	edits []edit
	by    net // what is to catch it; nothing: the simulation, at some seed
}

// net is a test that falls when the bug is there.
type net struct{ dir, test string }

func (n net) String() string { return fmt.Sprintf("go test ./%s -run '^%s$'", n.dir, n.test) }

// sighting is a world in which a bug of the simulated code shows.
type sighting struct {
	seed string
	rule string // that is broken there
}

// lab plants bugs. It knows how the code does without any: what falls by itself shows nothing.
type lab struct {
	dir, sound string // sound: the simulation without a bug

	mu     sync.Mutex
	worlds map[string]func() error // by seed
	tests  map[net]func() error
}

func newLab(dir string) (*lab, error) {
	l := &lab{dir: dir, sound: filepath.Join(dir, "sound"), worlds: map[string]func() error{}, tests: map[net]func() error{}}
	return l, build("", l.sound, net{})
}

// build builds the simulation, or the tests of a net.
func build(overlay, binary string, n net) error {
	args := []string{"build", "-ldflags=-s -w", "-overlay=" + overlay, "-o", binary, module + "/controller/sim/simulate"}
	if n != (net{}) {
		args = []string{"test", "-c", "-ldflags=-s -w", "-overlay=" + overlay, "-o", binary, module + "/" + n.dir}
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("it does not build: %s", out)
	}
	return nil
}

// try plants one bug and says how it was caught.
func (l *lab) try(dir string, m mutant, o options, known sighting) (caught, error) {
	overlay, err := plant(dir, m)
	if err != nil {
		return caught{}, err
	}
	binary := filepath.Join(dir, "binary")
	if err := build(overlay, binary, m.by); err != nil {
		return caught{}, err
	}
	defer func() { _ = os.Remove(binary) }()
	if m.by != (net{}) {
		how, err := fall(binary, m.by)
		if err != nil {
			// The nets with real servers may stumble on a busy machine.
			how, err = fall(binary, m.by)
		}
		if err != nil {
			return caught{}, err
		}
		if err := l.stands(m.by); err != nil {
			return caught{}, fmt.Errorf("%s falls without the bug, too: %w", m.by.test, err)
		}
		return caught{how: how}, nil
	}
	if known.seed != "" {
		switch by, how, err := live(binary, known.seed, 1); {
		case err != nil:
			return caught{}, err
		case by.seed != "" && l.peaceful(by.seed) == nil:
			return caught{by: by, how: "seed " + by.seed + ": " + how}, nil
		}
	}
	for from, left := 1, o.worlds; left > 0; {
		by, how, err := live(binary, fmt.Sprint(from), left)
		if err != nil {
			return caught{}, err
		}
		if by.seed == "" {
			break
		}
		if l.peaceful(by.seed) == nil {
			return caught{by: by, how: "seed " + by.seed + ": " + how, again: known.seed != ""}, nil
		}
		var at int
		_, _ = fmt.Sscan(by.seed, &at)
		left -= at + 1 - from
		from = at + 1
	}
	return caught{}, fmt.Errorf("no objection within %d worlds", o.worlds)
}

// plant writes the edited files down, and the overlay that has the compiler take them.
func plant(dir string, m mutant) (overlay string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	texts := map[string]string{}
	for _, e := range m.edits {
		if texts[e.file] == "" {
			text, err := os.ReadFile(e.file)
			if err != nil {
				return "", err
			}
			texts[e.file] = string(text)
		}
		if n := strings.Count(texts[e.file], e.was); n != 1 {
			return "", fmt.Errorf("%s has %d times what is to be changed, write the mutant anew: %q", e.file, n, e.was)
		}
		texts[e.file] = strings.Replace(texts[e.file], e.was, e.is, 1)
	}
	replace := map[string]string{}
	for file, text := range texts {
		changed := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			return "", err
		}
		path, err := filepath.Abs(file)
		if err != nil {
			return "", err
		}
		replace[path] = changed
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

var objection = regexp.MustCompile(`^seed (\d+): (\S+(?: §\d+)?) broken: (.*)`)

// live lives through worlds, from that of a seed on, and tells which of them broke a rule, if one
// did.
func live(binary, seed string, worlds int) (by sighting, how string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(worlds)*10*time.Second+patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "-quick", "-seed", seed, "-worlds", fmt.Sprint(worlds)).CombinedOutput()
	if err == nil {
		return sighting{}, "", nil
	}
	first, _, _ := strings.Cut(string(out), "\n")
	match := objection.FindStringSubmatch(first)
	if match == nil {
		return sighting{}, "", fmt.Errorf("the simulation did not come to its end: %s", first)
	}
	return sighting{match[1], match[2]}, match[2] + ": " + match[3], nil
}

// fall runs a test that is to fall.
func fall(binary string, n net) (how string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	test := exec.CommandContext(ctx, binary, "-test.run", "^"+n.test+"$", "-test.failfast")
	test.Dir = n.dir
	out, err := test.CombinedOutput()
	if err == nil {
		return "", errors.New("no objection by " + n.test)
	}
	deepest := ""
	for line := range strings.Lines(string(out)) {
		if _, name, ok := strings.Cut(line, "--- FAIL: "); ok {
			deepest, _, _ = strings.Cut(name, " (")
		}
	}
	if deepest == "" {
		return "", fmt.Errorf("%s did not come to its end: %.300s", n.test, out)
	}
	return deepest, nil
}

// stands tells why a test falls without a bug; nil: it does not. Each is asked once.
func (l *lab) stands(n net) error {
	l.mu.Lock()
	ask := l.tests[n]
	if ask == nil {
		binary := filepath.Join(l.dir, fmt.Sprintf("sound-%d", len(l.tests)))
		ask = sync.OnceValue(func() error {
			if err := build("", binary, n); err != nil {
				return err
			}
			defer func() { _ = os.Remove(binary) }()
			var err error
			for range 2 { // the nets with real servers may stumble on a busy machine
				test := exec.Command(binary, "-test.run", "^"+n.test+"$", "-test.v")
				test.Dir = n.dir
				var out []byte
				if out, err = test.CombinedOutput(); err != nil {
					err = fmt.Errorf("%w: %.300s", err, out)
					continue
				}
				if !strings.Contains(string(out), "--- PASS: "+n.test+" ") {
					err = errors.New("it was not run")
				}
				break
			}
			return err
		})
		l.tests[n] = ask
	}
	l.mu.Unlock()
	return ask()
}

// peaceful tells why a world breaks a rule without a bug; nil: it does not. Each is asked once.
func (l *lab) peaceful(seed string) error {
	l.mu.Lock()
	ask := l.worlds[seed]
	if ask == nil {
		ask = sync.OnceValue(func() error {
			by, how, err := live(l.sound, seed, 1)
			if err == nil && by.seed != "" {
				err = errors.New(how)
			}
			return err
		})
		l.worlds[seed] = ask
	}
	l.mu.Unlock()
	return ask()
}
