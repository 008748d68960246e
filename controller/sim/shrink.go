package sim

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Shrink leaves out every fault that a broken promise does not need, and tells what is left as
// a story. It tries halves, quarters and so on, and then each fault alone, for a bounded time.
func Shrink(r Result, o Options, tries int) Result {
	kept := map[int]bool{}
	for _, f := range r.faults {
		if f.At <= r.Broken.At {
			kept[f.N] = true
		}
	}
	attempt := func(keep map[int]bool, tell bool) Result {
		o := o
		o.keep, o.tell = func(n int) bool { return keep[n] }, tell
		return Run(r.Seed, o)
	}
	rule := r.Broken.Rule
	for size := (len(kept) + 1) / 2; size >= 1 && tries > 0; size /= 2 {
		order := sortedKeys(kept)
		for begin := 0; begin < len(order) && tries > 0; begin += size {
			less := map[int]bool{}
			for n := range kept {
				less[n] = true
			}
			for _, n := range order[begin:min(begin+size, len(order))] {
				delete(less, n)
			}
			tries--
			if got := attempt(less, false); got.Broken != nil && got.Broken.Rule == rule {
				kept = less
			}
		}
	}
	return attempt(kept, true)
}

// Story writes a told result down in plain words: the faults, and what happened shortly before
// the end.
func (r Result) Story(out io.Writer) {
	_, _ = fmt.Fprintf(out, "seed %d: %s\nthe world: %s\n", r.Seed, r.Broken, r.setting)
	const last = 60
	for i, l := range r.story {
		if i >= len(r.story)-last || strings.HasPrefix(l.text, "FAULT") {
			_, _ = fmt.Fprintf(out, "  %10s  %s\n", l.at.Round(time.Millisecond), l.text)
		}
	}
}
