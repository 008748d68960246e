package sim

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Tally counts what happened.
type Tally struct {
	Worlds, Replayed                                     int
	Steps, Faults                                        int
	Sessions, Binds, Ends, Lost, Launches, Drains, Stops int
	Reigns                                               int
	Killed                                               int // sessions that were served when we stopped their task
	Repeats, Duplicates                                  int // calls of RunTask for a launch that has its task: answered with that, or with another
	Time                                                 time.Duration
	Matrix                                               [kinds][steps]int
	Marks                                                map[string]int
}

func newTally() *Tally { return &Tally{Marks: map[string]int{}} }

// mark counts something that must happen sometimes.
func (t *Tally) mark(what string) { t.Marks[what]++ }

// Add adds what happened in other worlds.
func (t *Tally) Add(o Tally) {
	t.Worlds += o.Worlds
	t.Replayed += o.Replayed
	t.Steps += o.Steps
	t.Faults += o.Faults
	t.Sessions += o.Sessions
	t.Binds += o.Binds
	t.Ends += o.Ends
	t.Lost += o.Lost
	t.Launches += o.Launches
	t.Drains += o.Drains
	t.Stops += o.Stops
	t.Reigns += o.Reigns
	t.Killed += o.Killed
	t.Repeats += o.Repeats
	t.Duplicates += o.Duplicates
	t.Time += o.Time
	for k := range t.Matrix {
		for s := range t.Matrix[k] {
			t.Matrix[k][s] += o.Matrix[k][s]
		}
	}
	for what, n := range o.Marks {
		t.Marks[what] += n
	}
}

// Empty lists the cells of the matrix in which no fault fell.
func (t *Tally) Empty() []string {
	var empty []string
	for k := noFault + 1; k < kinds; k++ {
		for s := stepNone + 1; s < steps; s++ {
			if t.Matrix[k][s] == 0 && impossible(k, s) == "" {
				empty = append(empty, Fault{Kind: k, Step: s}.String())
			}
		}
	}
	return empty
}

// impossible says why no fault of a kind can fall on a step; empty: it can.
func impossible(k Kind, s Step) string {
	if k == containerReturns && s == stepClaim {
		return "only containers of the first version are claimed, and they never return under their id"
	}
	return ""
}

// Impossible lists the cells of the matrix that cannot be filled, and why.
func Impossible() []string {
	var all []string
	for k := noFault + 1; k < kinds; k++ {
		for s := stepNone + 1; s < steps; s++ {
			if why := impossible(k, s); why != "" {
				all = append(all, Fault{Kind: k, Step: s}.String()+": "+why)
			}
		}
	}
	return all
}

// Kinds counts the kinds of faults that fell.
func (t *Tally) Kinds() int {
	n := 0
	for k := range t.Matrix {
		for _, count := range t.Matrix[k] {
			if count > 0 {
				n++
				break
			}
		}
	}
	return n
}

// CrashPoints counts the kills and stops around the intent, the call and the record of launches.
func (t *Tally) CrashPoints() int {
	n := 0
	for _, k := range []Kind{killBefore, killAfter, pauseBefore, pauseAfter, answerLost, callFails} {
		n += t.Matrix[k][stepIntent] + t.Matrix[k][stepRunTask] + t.Matrix[k][stepRecord]
	}
	return n
}

// Print writes the counts and the matrix of kinds by steps.
func (t *Tally) Print(out io.Writer) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	p("%-44s%s", "faults by kind (down) and step (across)", "")
	for s := stepNone + 1; s < steps; s++ {
		p("  %2d %s", s, stepNames[s])
	}
	var head strings.Builder
	for s := stepNone + 1; s < steps; s++ {
		fmt.Fprintf(&head, "%6d", s)
	}
	p("%-38s%s", "", head.String())
	for k := noFault + 1; k < kinds; k++ {
		var row strings.Builder
		for s := stepNone + 1; s < steps; s++ {
			if impossible(k, s) != "" {
				row.WriteString("     –")
				continue
			}
			fmt.Fprintf(&row, "%6d", t.Matrix[k][s])
		}
		p("%-38s%s", kindNames[k], row.String())
	}
	for _, what := range Impossible() {
		p("–: %s", what)
	}
	p("")
	for _, what := range sortedKeys(t.Marks) {
		p("%8d × %s", t.Marks[what], what)
	}
	p("")
	p("%d worlds of 1 to 3 replicas, up to 10 containers and 40 slots; %d lived through twice, step by step the same", t.Worlds, t.Replayed)
	p("%.0f simulated cluster-hours, %d steps, %d reigns", t.Time.Hours(), t.Steps, t.Reigns)
	p("%d of %d cells are empty, %d cannot be filled", len(t.Empty()), (int(kinds)-1)*(int(steps)-1), len(Impossible()))
	p("%d faults of %d kinds", t.Faults, t.Kinds())
	p("%d launches; %d crash points around the intent, the call and the record of one; %d calls repeated, %d tasks started twice",
		t.Launches, t.CrashPoints(), t.Repeats, t.Duplicates)
	p("%d drains by the leader, %d tasks stopped, %d sessions killed by that", t.Drains, t.Stops, t.Killed)
	p("%d sessions wished for, %d bindings, %d ends", t.Sessions, t.Binds, t.Ends)
}

// sometimes are the marks that a long enough run must reach: what the checker guards happens
// in it at all.
var sometimes = []string{
	"a repeated RunTask gave the same task",
	"a task that was over was still shown as running",
	"a listing lacked a new task",
	"a launch was refused for want of capacity",
	"a lost document was written again",
	"a container hung",
	"a container of the first version was claimed",
	"a link's owner was fenced",
	"a session ended: released",
	"a session ended: deadline",
	"a session ended: browser_crashed",
	"a session ended: container_lost",
	"a session ended: stopped_externally",
	"a session ended: failed",
	"a store was given back what it had lost",
	"a store was found whole again",
	"a container was opened again",
	"a leader that could not read gave the lead up",
}

// Missing lists what never happened and should: cells of the matrix and marks.
func (t *Tally) Missing() []string { return append(t.Empty(), t.Unreached()...) }

// Unreached lists what never happened.
func (t *Tally) Unreached() []string {
	var never []string
	for _, what := range sometimes {
		if t.Marks[what] == 0 {
			never = append(never, what)
		}
	}
	return never
}
