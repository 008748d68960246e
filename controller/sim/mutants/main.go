// Command mutants plants small bugs, one at a time, and sees whether the simulation finds them:
// see make mutants. Without -record it lives only through the seed that is recorded for each.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	module   = "github.com/wallcrawler/wallcrawler"
	recorded = "controller/sim/mutants/seeds.txt"
)

// edit is one place of a bug: text that stands exactly once in a file, and what becomes of it.
type edit struct{ file, was, is string }

// mutant is a bug.
type mutant struct {
	name  string
	edits []edit
	// checker says that the bug is in the checker itself: worlds that are bad by hand show it.
	checker bool
}

func main() {
	record := flag.Bool("record", false, "look for a seed for each, and write them down")
	only := flag.String("only", "", "only mutants whose name contains this")
	worlds := flag.Int("worlds", 400, "worlds at most, with -record")
	flag.Parse()
	seeds, err := readSeeds()
	if err == nil {
		err = run(*record, *only, *worlds, seeds)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(record bool, only string, worlds int, seeds map[string]string) error {
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var (
		mu             sync.Mutex
		wg             sync.WaitGroup
		passed, failed int
		slots          = make(chan struct{}, 2)
	)
	for i, m := range mutants {
		if !strings.Contains(m.name, only) {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			begin := time.Now()
			how, seed, missed := try(filepath.Join(dir, fmt.Sprint(i)), m, record, worlds, seeds[m.name])
			mu.Lock()
			defer mu.Unlock()
			if missed != nil {
				failed++
				fmt.Fprintf(os.Stdout, "SURVIVED  %-60s %v\n", m.name, missed)
				return
			}
			passed++
			seeds[m.name] = seed
			if record {
				err = writeSeeds(seeds)
			}
			fmt.Fprintf(os.Stdout, "caught    %-60s seed %-5s %s (%s)\n", m.name, seed, how, time.Since(begin).Round(100*time.Millisecond))
		})
	}
	wg.Wait()
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "\n%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return fmt.Errorf("%d planted bugs were not found", failed)
	}
	return nil
}

var found = regexp.MustCompile(`^seed (\d+): (.*)`)

// try builds the simulation with one bug in it and runs it. It tells which seed showed the bug,
// and how.
func try(dir string, m mutant, record bool, worlds int, seed string) (how, by string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", "", err
	}
	overlay := map[string]map[string]string{"Replace": {}}
	texts := map[string]string{}
	for _, e := range m.edits {
		if texts[e.file] == "" {
			text, err := os.ReadFile(e.file)
			if err != nil {
				return "", "", err
			}
			texts[e.file] = string(text)
		}
		if n := strings.Count(texts[e.file], e.was); n != 1 {
			return "", "", fmt.Errorf("%s has %d times what is to be changed, write the mutant anew: %q", e.file, n, e.was)
		}
		texts[e.file] = strings.Replace(texts[e.file], e.was, e.is, 1)
	}
	for file, text := range texts {
		changed := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			return "", "", err
		}
		path, err := filepath.Abs(file)
		if err != nil {
			return "", "", err
		}
		overlay["Replace"][path] = changed
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		return "", "", err
	}
	list, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "simulate")
	if err := os.WriteFile(list, text, 0o600); err != nil {
		return "", "", err
	}
	build := exec.Command("go", "build", "-overlay", list, "-o", binary, module+"/controller/sim/simulate")
	if out, err := build.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("it does not build: %s", out)
	}
	args := []string{"-quick", "-seed", seed, "-worlds", "1"}
	switch {
	case m.checker:
		args = []string{"-selftest"}
	case record:
		args = []string{"-quick", "-seed", "1", "-worlds", fmt.Sprint(worlds)}
	case seed == "":
		return "", "", fmt.Errorf("no seed is recorded for it: make mutants")
	}
	out, err := exec.Command(binary, args...).CombinedOutput()
	first, _, _ := strings.Cut(string(out), "\n")
	if err == nil {
		return "", "", fmt.Errorf("no objection by %s", strings.Join(args, " "))
	}
	if m.checker {
		return first, "self", nil
	}
	match := found.FindStringSubmatch(first)
	if match == nil {
		return "", "", fmt.Errorf("it did not run: %s", first)
	}
	return match[2], match[1], nil
}

// readSeeds reads which seed shows which bug.
func readSeeds() (map[string]string, error) {
	seeds := map[string]string{}
	file, err := os.Open(recorded)
	if os.IsNotExist(err) {
		return seeds, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if seed, name, ok := strings.Cut(lines.Text(), "\t"); ok {
			seeds[name] = seed
		}
	}
	return seeds, lines.Err()
}

func writeSeeds(seeds map[string]string) error {
	var lines []string
	for _, m := range mutants {
		if seed := seeds[m.name]; seed != "" {
			lines = append(lines, seed+"\t"+m.name+"\n")
		}
	}
	return os.WriteFile(recorded, []byte(strings.Join(slices.Compact(lines), "")), 0o644)
}
