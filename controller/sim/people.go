package sim

import (
	"fmt"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// people are the requesters, and what they truly want.
type people struct {
	w      *World
	wishes map[string]*wish
	open   []string // ids of wishes that are not over, oldest first
	rate   time.Duration
}

// wish is one session that somebody wants.
type wish struct {
	id       string
	user     string
	at       time.Duration // when it was wished for
	deadline time.Duration
	api      bool

	overAt    time.Duration // the requester wanted it over; zero: not
	unheard   bool          // the requester wanted it over, and the store has lost that
	evictedAt time.Duration // its document was lost; zero: not
	text      string        // as last written
	ended     bool          // as the controller says
	lostAt    time.Duration // its browser or its container died; zero: not
}

func (p *people) begin() { p.w.after(p.w.between(0, p.rate), p.arrive) }

// arrive has one more session wished for.
func (p *people) arrive() {
	w := p.w
	w.after(w.between(p.rate/4, p.rate*7/4), p.arrive)
	if w.storm.calm() && len(p.open) > 3 {
		return
	}
	length := w.between(20*time.Second, 5*time.Minute)
	if w.brisk && !w.chance(3) {
		length /= 5
	}
	x := &wish{id: w.newID("s"), user: fmt.Sprintf("u%d", w.rng.IntN(3)), at: w.now, deadline: w.now + length, api: w.chance(2)}
	origin := ""
	if x.api {
		origin = `,"origin":"api"`
	}
	x.text = fmt.Sprintf(`{"sessionId":%q,"userId":%q,"status":"pending","timeout":%d%s}`, x.id, x.user, length.Milliseconds(), origin)
	if w.now < w.storm.outageUntil {
		return
	}
	p.wishes[x.id] = x
	p.open = append(p.open, x.id)
	w.tally.Sessions++
	if x.api {
		_ = w.store.CreateDocument(background, x.id, []byte(x.text), length)
	} else {
		w.store.SetDocument(x.id, x.text, length)
	}
	w.note("session %s is wished for, for %s", x.id, length.Round(time.Second))
	w.after(length+time.Minute, func() { p.over(x) })
	if !w.chance(4) {
		w.after(w.between(min(10*time.Second, length/2), length), func() { p.release(x) })
	}
}

// release is the requester's wish to end it, in one of the ways that there are.
func (p *people) release(x *wish) {
	w := p.w
	if x.overAt != 0 || x.ended {
		return
	}
	if w.now < w.storm.outageUntil {
		w.after(time.Second, func() { p.release(x) })
		return
	}
	x.overAt = w.now
	w.note("the requester of session %s wants it over", x.id)
	if x.api {
		_ = w.store.EditDocument(background, x.id, 0, func(text []byte) ([]byte, error) {
			return state.SetField(text, "status", state.StatusTerminated)
		})
		return
	}
	// A Lambda writes the whole document anew, for five minutes.
	w.store.SetDocument(x.id, fmt.Sprintf(`{"sessionId":%q,"userId":%q,"status":"terminated"}`, x.id, x.user), 5*time.Minute)
}

// over forgets a wish.
func (p *people) over(x *wish) {
	for i, id := range p.open {
		if id == x.id {
			p.open = append(p.open[:i:i], p.open[i+1:]...)
			break
		}
	}
	p.w.after(10*time.Minute, func() { delete(p.wishes, x.id) })
}

// lost notes that a browser died, and nobody can give it back.
func (p *people) lost(session string) {
	if x := p.wishes[session]; x != nil && x.lostAt == 0 {
		x.lostAt = max(1, p.w.now)
	}
}

// rewrite writes a document back as it was read long ago, as a careless Lambda does.
func (p *people) rewrite(x *wish) {
	doc, err := p.w.store.Document(background, x.id)
	if err != nil || doc.Missing || x.overAt != 0 {
		return
	}
	p.w.store.SetDocument(x.id, x.text, max(time.Second, x.deadline-p.w.now))
}
