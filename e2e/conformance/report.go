//go:build linux

package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"time"
)

// result is what became of a check.
type result struct {
	check
	err  error
	took time.Duration
}

// report collects results and prints them by group.
type report struct {
	out     io.Writer
	verbose bool
	results []result
	failed  int
}

func (r *report) add(x result) {
	r.results = append(r.results, x)
	switch {
	case x.err != nil:
		r.failed++
		fmt.Fprintf(r.out, "FAIL %-20s %s\n     %v\n", x.id, x.title, x.err)
	case r.verbose:
		fmt.Fprintf(r.out, "ok   %-20s %s (%s)\n", x.id, x.title, x.took.Round(time.Millisecond))
	}
}

// byGroup gives the results group by group, in the order in which groups have begun.
func (r *report) byGroup() (ids []string, of map[string][]result) {
	of = map[string][]result{}
	for _, x := range r.results {
		if of[x.group] == nil {
			ids = append(ids, x.group)
		}
		of[x.group] = append(of[x.group], x)
	}
	return ids, of
}

func (r *report) summary() {
	ids, of := r.byGroup()
	fmt.Fprintf(r.out, "\n%-6s %-45s %7s %7s %8s\n", "group", "what", "checks", "failed", "seconds")
	for _, id := range ids {
		failed, took := 0, time.Duration(0)
		for _, x := range of[id] {
			took += x.took
			if x.err != nil {
				failed++
			}
		}
		fmt.Fprintf(r.out, "%-6s %-45s %7d %7d %8.1f\n", id, titles()[id], len(of[id]), failed, took.Seconds())
	}
	fmt.Fprintf(r.out, "\n%d checks, %d failed\n", len(r.results), r.failed)
}

// junit is the file that CI systems read.
type junit struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitFailure `xml:"failure,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
}

// save writes the report as a JUnit file.
func (r *report) save(name string) error {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
	file := junit{Tests: len(r.results), Failures: r.failed}
	ids, of := r.byGroup()
	for _, id := range ids {
		suite := junitSuite{Name: "conformance." + id + " " + titles()[id], Tests: len(of[id])}
		took := time.Duration(0)
		for _, x := range of[id] {
			took += x.took
			c := junitCase{Class: "conformance." + id, Name: x.id + " " + x.title, Time: seconds(x.took)}
			if x.err != nil {
				suite.Failures++
				c.Failure = &junitFailure{x.err.Error()}
			}
			suite.Cases = append(suite.Cases, c)
		}
		suite.Time = seconds(took)
		file.Suites = append(file.Suites, suite)
	}
	text, err := xml.MarshalIndent(file, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	if err := os.WriteFile(name, append([]byte(xml.Header), text...), 0o644); err != nil { //nolint:gosec // a report is for everybody
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}
