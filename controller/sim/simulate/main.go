// Command simulate lives through simulated worlds and says what it has seen: see make sim.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/sim"
)

func main() {
	debug.SetGCPercent(400) // worlds are small and short
	var (
		seed   = flag.Uint64("seed", 1, "first seed")
		worlds = flag.Int("worlds", math.MaxInt, "worlds at most")
		length = flag.Duration("for", 0, "how long to go on; 0: until all worlds are done")
		whole  = flag.Bool("whole", false, "fail if a cell of the matrix is empty or a mark was not reached, and go on for up to twice the time until then")
		quick  = flag.Bool("quick", false, "say only which seed failed, without its story")
	)
	profile := flag.String("cpuprofile", "", "write a CPU profile to this file")
	flag.Parse()
	os.Exit(profiled(*profile, func() int { return simulate(*seed, *worlds, *length, *whole, *quick) }))
}

// profiled does something, and writes down where its time went if that is asked for.
func profiled(file string, do func() int) int {
	if file == "" {
		return do()
	}
	f, err := os.Create(file)
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { pprof.StopCPUProfile(); _ = f.Close() }()
	return do()
}

func simulate(seed uint64, worlds int, length time.Duration, whole, quick bool) int {
	if worlds == math.MaxInt && length == 0 {
		length = 2 * time.Minute
	}
	end := time.Now().Add(length)
	over := func() bool { return length > 0 && time.Now().After(end) }
	total, failed := sim.Many(seed, worlds, over, sim.Options{})
	// A slow machine has not seen everything by then. It is given as much time again.
	for last := end.Add(length); whole && length > 0 && len(failed) == 0 && len(total.Missing()) > 0 && time.Now().Before(last); {
		end = time.Now().Add(length / 8)
		more, broken := sim.Many(seed+uint64(total.Worlds), worlds-total.Worlds, over, sim.Options{})
		total.Add(more)
		failed = broken
	}
	if quick {
		if len(failed) == 0 {
			return 0
		}
		first := slices.MinFunc(failed, func(a, b sim.Result) int { return cmp.Compare(a.Seed, b.Seed) })
		fmt.Fprintf(os.Stdout, "seed %d: %v\n", first.Seed, first.Broken)
		return 1
	}
	bad := len(failed)
	total.Print(os.Stdout)
	for _, r := range failed {
		fmt.Fprintf(os.Stdout, "\nseed %d FAILED: %v\nshrinking it\n", r.Seed, r.Broken)
		if small := sim.Shrink(r, sim.Options{}, 100); small.Broken != nil {
			small.Story(os.Stdout)
		} else {
			fmt.Fprintln(os.Stdout, "it does not fail a second time: the world is not deterministic")
		}
	}
	if whole {
		missing := total.Missing()
		for _, what := range missing {
			fmt.Fprintf(os.Stdout, "never happened: %s\n", what)
		}
		bad += len(missing)
	}
	fmt.Fprintf(os.Stdout, "\n%d passed, %d failed\n", total.Worlds-len(failed), bad)
	if bad > 0 {
		return 1
	}
	return 0
}
