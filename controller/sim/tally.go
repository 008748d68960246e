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
	Time                                                 time.Duration
	Matrix                                               [kinds][steps]int
	Marks                                                map[string]int
}

func newTally() *Tally { return &Tally{Marks: map[string]int{}} }

// mark counts something that must happen sometimes.
func (t *Tally) mark(what string) { t.Marks[what]++ }

func (t *Tally) add(o Tally) {
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
			if t.Matrix[k][s] == 0 {
				empty = append(empty, Fault{Kind: k, Step: s}.String())
			}
		}
	}
	return empty
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
			fmt.Fprintf(&row, "%6d", t.Matrix[k][s])
		}
		p("%-38s%s", kindNames[k], row.String())
	}
	p("")
	for _, what := range sortedKeys(t.Marks) {
		p("%8d × %s", t.Marks[what], what)
	}
	p("")
	p("%d worlds of 1 to 3 replicas, up to 10 containers and 40 slots; %d lived through twice, step by step the same", t.Worlds, t.Replayed)
	p("%.0f simulated cluster-hours, %d steps, %d reigns", t.Time.Hours(), t.Steps, t.Reigns)
	p("%d of %d cells are empty", len(t.Empty()), (int(kinds)-1)*(int(steps)-1))
	p("%d faults of %d kinds; %d of them around the intent, the call and the record of a launch", t.Faults, t.Kinds(), t.CrashPoints())
	p("%d sessions wished for, %d bindings, %d ends; %d launches, %d drains by the leader, %d tasks stopped", t.Sessions, t.Binds, t.Ends, t.Launches, t.Drains, t.Stops)
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
}

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
