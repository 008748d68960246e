// Command mutants plants small bugs, one at a time, and sees whether the net that is to catch it
// does: see make mutants. Without -record it lives only through the seed that is recorded for
// each, and looks for another if that one does not show the bug any more.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

//go:generate sh -c "cd ../../.. && go run ./controller/sim/mutants -table"

// options are what the command line says.
type options struct {
	record bool
	only   string
	worlds int
	beside int
}

func main() {
	var o options
	flag.BoolVar(&o.record, "record", false, "write down which seed shows each, in "+recorded+" and "+page)
	flag.StringVar(&o.only, "only", "", "only mutants whose name contains this")
	flag.IntVar(&o.worlds, "worlds", 0, "worlds to look through at most, should the recorded seed not show the bug; 0: 400 with -record, else 60")
	flag.IntVar(&o.beside, "beside", 2, "mutants to try at once")
	table := flag.Bool("table", false, "only write the table in "+page+" anew")
	flag.Parse()
	if o.worlds == 0 {
		o.worlds = 60
		if o.record {
			o.worlds = 400
		}
	}
	seeds, err := readSeeds()
	switch {
	case err != nil:
	case *table:
		err = writeTable(seeds)
	default:
		err = run(o, seeds)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// caught is how a bug came to light.
type caught struct {
	by    sighting // of a simulated bug
	how   string
	again bool // at another seed than the recorded one
}

func run(o options, seeds map[string]sighting) error {
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	lab, err := newLab(dir)
	if err != nil {
		return err
	}
	var (
		mu            sync.Mutex // guards what follows, seeds and the output
		wg            sync.WaitGroup
		passed, moved int
		survived      []string // said once more at the end, where a reader looks first
		slots         = make(chan struct{}, max(1, o.beside))
		say           = func(format string, args ...any) { fmt.Fprintf(os.Stdout, format+"\n", args...) }
		begin         = time.Now()
		tell          func(m mutant, c caught, took time.Duration, missed error)
	)
	tell = func(m mutant, c caught, took time.Duration, missed error) {
		if missed != nil {
			survived = append(survived, fmt.Sprintf("SURVIVED  %-62s %v", m.name, missed))
			say("%s", survived[len(survived)-1])
			return
		}
		passed++
		seeds[m.name] = c.by
		how := c.how
		if c.again {
			moved++
			how = fmt.Sprintf("at another seed, %s, record again: %s", c.by.seed, how)
		}
		say("caught    %-62s %s (%s)", m.name, how, took.Round(100*time.Millisecond))
	}
	for i, m := range mutants {
		if !strings.Contains(m.name, o.only) {
			continue
		}
		slots <- struct{}{}
		mu.Lock()
		known := seeds[m.name]
		mu.Unlock()
		wg.Go(func() {
			defer func() { <-slots }()
			begin := time.Now()
			c, missed := lab.try(filepath.Join(dir, fmt.Sprint(i)), m, o, known)
			mu.Lock()
			defer mu.Unlock()
			tell(m, c, time.Since(begin), missed)
			if o.record {
				err = cmp.Or(err, writeSeeds(seeds))
			}
		})
	}
	wg.Wait()
	if o.record {
		err = cmp.Or(err, writeTable(seeds))
	}
	if err != nil {
		return err
	}
	if moved > 0 && !o.record {
		say("\n%d were caught at another seed than the recorded one: make mutants", moved)
	}
	if len(survived) > 0 {
		say("\n%s", strings.Join(survived, "\n"))
	}
	say("\n%d passed, %d failed in %s", passed, len(survived), time.Since(begin).Round(time.Second))
	if len(survived) > 0 {
		return fmt.Errorf("%d planted bugs were not found", len(survived))
	}
	return nil
}
