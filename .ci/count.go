//go:build ignore

// Count runs `go test -json` with its arguments, prints each package's result and all that
// failed tests have said, and closes with one line: "N passed, N failed". A test with subtests
// is counted by its subtests, unless it has failed where none of them has.
//
// A few that have failed are tried once more, alone, and forgiven if they pass then, as flaky. With
// -strict none is: where a test is run again and again to see whether it ever fails, it has failed.
//
//	go run .ci/count.go -race ./...
//	go run .ci/count.go -also charts/test -race ./...   # and all tests of the module in charts/test
//	go run .ci/count.go -strict -count=10 ./e2e
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

// event is a line of `go test -json`.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64 // seconds
}

// result is what became of a test, or of a package's own (its name is empty).
type result struct {
	outcome  string // pass, fail, skip; empty while it runs
	output   strings.Builder
	children bool
	failed   bool // it or a test below it has failed
}

type run struct {
	out                     io.Writer
	dir                     string // of the module whose tests run now
	packages                map[string]map[string]*result
	builds                  map[string]*strings.Builder // import path → what the compiler said
	passed, failed, skipped int
	fell                    []failure // to be said once more at the end
}

// failure is a test that has failed.
type failure struct {
	dir, pkg, test string // test is empty: not one of the package's tests
	why            string
	final          bool // not to be tried again: the process died, so that others were not run
}

func (r *run) of(pkg, test string) *result {
	tests := r.packages[pkg]
	if tests == nil {
		tests = map[string]*result{}
		r.packages[pkg] = tests
	}
	if tests[test] == nil {
		tests[test] = &result{}
	}
	return tests[test]
}

func (r *run) take(e event) {
	switch e.Action {
	case "build-output":
		if r.builds[e.ImportPath] == nil {
			r.builds[e.ImportPath] = &strings.Builder{}
		}
		r.builds[e.ImportPath].WriteString(e.Output)
	case "build-fail":
		if b := r.builds[e.ImportPath]; b != nil {
			fmt.Fprint(r.out, b.String())
		}
	case "output":
		r.of(e.Package, e.Test).output.WriteString(e.Output)
	case "pass", "fail", "skip":
		t := r.of(e.Package, e.Test)
		if t.outcome != "fail" { // of -count=N runs, the one that failed counts
			t.outcome = e.Action
		}
		if e.Test == "" {
			r.close(e)
		}
	}
}

// close counts a package that has ended.
func (r *run) close(e event) {
	tests := r.packages[e.Package]
	delete(r.packages, e.Package)
	names := slices.Sorted(maps.Keys(tests))
	died := false
	for _, name := range names {
		t := tests[name]
		if name != "" && t.outcome == "" && e.Action == "fail" {
			t.outcome = "fail" // the process died under it
			died = true
		}
		for parent := name; strings.Contains(parent, "/"); {
			parent = parent[:strings.LastIndex(parent, "/")]
			if p := tests[parent]; p != nil {
				p.children = true
				p.failed = p.failed || t.outcome == "fail"
			}
		}
	}
	passed, failed, skipped := 0, 0, 0
	for _, name := range names {
		t := tests[name]
		switch {
		case name == "":
		case t.outcome == "fail" && !t.failed:
			failed++
			text := clean(t.output.String())
			fmt.Fprintf(r.out, "\n--- %s %s\n%s\n", e.Package, name, text)
			r.fell = append(r.fell, failure{r.dir, e.Package, name, verdict(text), false})
		case t.outcome == "fail":
			// A parent of what has failed: what it said itself may still explain.
			if text := clean(t.output.String()); text != "" {
				fmt.Fprintf(r.out, "\n--- %s %s\n%s\n", e.Package, name, text)
			}
		case t.children:
		case t.outcome == "skip":
			skipped++
			fmt.Fprintf(r.out, "skipped %s %s\n%s\n", e.Package, name, clean(t.output.String()))
		default:
			passed++
		}
	}
	if e.Action == "fail" && failed == 0 {
		failed++ // it was not built, or something beside its tests has failed
		r.fell = append(r.fell, failure{r.dir, e.Package, "", "not one of its tests, see above", true})
	}
	if e.Action == "fail" {
		// That line is printed when all tests have run.
		died = died || !strings.Contains("\n"+tests[""].output.String(), "\nFAIL\n")
		if text := clean(tests[""].output.String()); text != "" {
			fmt.Fprintf(r.out, "\n--- %s\n%s\n", e.Package, text)
			died = true // or something beside its tests has failed, too
		}
	}
	if died {
		r.fell = append(r.fell, failure{r.dir, e.Package, "", "it did not come to its end as it should, see above", true})
	}
	r.passed, r.failed, r.skipped = r.passed+passed, r.failed+failed, r.skipped+skipped
	if passed+failed+skipped == 0 {
		return
	}
	mark := "ok  "
	if failed > 0 {
		mark = "FAIL"
	}
	took := time.Duration(e.Elapsed * float64(time.Second)).Round(100 * time.Millisecond)
	fmt.Fprintf(r.out, "%s %-62s %4d passed, %d failed, %v\n", mark, e.Package, passed, failed, took)
}

// clean drops the lines that `go test` frames tests with.
func clean(output string) string {
	var kept []string
	for line := range strings.Lines(output) {
		word := strings.TrimSpace(line)
		framed := slices.ContainsFunc([]string{"=== RUN", "=== PAUSE", "=== CONT", "=== NAME", "--- FAIL", "--- SKIP", "-test.shuffle ", "ok  \t", "FAIL\t"},
			func(prefix string) bool { return strings.HasPrefix(word, prefix) })
		if !framed && word != "PASS" && word != "FAIL" && word != "" {
			kept = append(kept, strings.TrimRight(line, "\n"))
		}
	}
	return strings.Join(kept, "\n")
}

// race is what the race detector says of a test in which it has found one.
const race = "race detected during execution of test"

var said = regexp.MustCompile(`^\s*\w+\.go:\d+: `)

// verdict is the line that tells best why a test failed: what it said last at its own level, but
// for what the processes that it had started had printed. Those lines are many, and a reader who
// sees only the end of a log is to find the reason there.
func verdict(output string) string {
	if strings.Contains(output, "DATA RACE") || strings.Contains(output, "has a data race") || strings.Contains(output, race) {
		return race
	}
	last := ""
	for line := range strings.Lines(output) {
		if said.MatchString(line) && !strings.Contains(line, " printed:") {
			last = strings.TrimSpace(line)
		}
	}
	if last == "" {
		last, _, _ = strings.Cut(strings.TrimSpace(output), "\n")
	}
	return fmt.Sprintf("%.300s", last)
}

// test runs one `go test` and takes in what it says.
func (r *run) test(dir string, args []string) {
	r.dir = dir
	failedBefore := r.failed
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Println("go test:", err)
		r.failed++
		return
	}
	lines := bufio.NewReader(pipe)
	for {
		line, readErr := lines.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil {
			r.take(e)
		} else {
			os.Stdout.Write(line) // not an event: the go command's own words
		}
		if readErr != nil {
			break
		}
	}
	if err := cmd.Wait(); err != nil && r.failed == failedBefore {
		fmt.Println("go test:", err)
		r.failed++
	}
}

// once is how many failed tests are tried once more, at most. More of them are no accident.
const once = 5

// again runs what has failed once more, alone now: hundreds of these tests wait for real processes
// on a machine that may be anybody's. What stands alone is counted as passed and is named as
// flaky, so that it is looked into; a data race is one, however seldom it is seen.
func (r *run) again(args []string) {
	if len(r.fell) > once || slices.ContainsFunc(r.fell, func(f failure) bool { return f.final }) {
		return
	}
	var still []failure
	for _, f := range r.fell {
		if f.test == "" || f.why == race || !alone(f, args) {
			still = append(still, f)
			continue
		}
		r.failed--
		r.passed++
		fmt.Printf("flaky %s %s: %s\n", f.pkg, f.test, f.why)
	}
	r.fell = still
}

// alone runs one test with the flags of args and tells whether it passes.
func alone(f failure, args []string) bool {
	words := strings.Split(f.test, "/")
	for i, word := range words {
		words[i] = "^" + regexp.QuoteMeta(word) + "$"
	}
	flags := slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return strings.HasPrefix(arg, ".") })
	cmd := exec.Command("go", append(append([]string{"test", "-v", "-count=1"}, flags...), "-run", strings.Join(words, "/"), f.pkg)...)
	cmd.Dir = f.dir
	out, err := cmd.CombinedOutput()
	fmt.Printf("\n--- once more: %s %s\n%s\n", f.pkg, f.test, clean(string(out)))
	return err == nil && strings.Contains(string(out), "--- PASS: "+f.test+" ")
}

func main() {
	r := &run{out: os.Stdout, packages: map[string]map[string]*result{}, builds: map[string]*strings.Builder{}}
	begin := time.Now()
	args, modules, strict := os.Args[1:], []string{}, false
	for own := true; own; {
		switch {
		case len(args) > 1 && args[0] == "-also":
			args, modules = args[2:], append(modules, args[1])
		case len(args) > 0 && args[0] == "-strict":
			args, strict = args[1:], true
		default:
			own = false
		}
	}
	r.test("", args)
	for _, dir := range modules {
		r.test(dir, []string{"-shuffle=on", "-timeout", "10m", "./..."})
	}
	if !strict {
		r.again(args)
	}
	if r.passed == 0 && r.failed == 0 {
		fmt.Println("no test has run")
		r.failed++
	}
	if r.skipped > 0 {
		fmt.Printf("%d skipped\n", r.skipped)
	}
	for _, f := range r.fell {
		fmt.Printf("failed %s %s: %s\n", f.pkg, f.test, f.why)
	}
	fmt.Printf("in %v\n%d passed, %d failed\n", time.Since(begin).Round(time.Second), r.passed, r.failed)
	if r.failed > 0 {
		os.Exit(1)
	}
}
