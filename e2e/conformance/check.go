//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// way is how the stream of a case is sent.
type way struct {
	chop       int
	interleave bool // the endpoint sends frames of its own meanwhile, some bytes at a time
}

func (w way) String() string {
	s := "whole" + how(w.chop)
	if w.interleave {
		s += ", with frames the other way between"
	}
	return s
}

// maxPieces bounds the pieces of a stream that is sent piece by piece, each after the one before
// has arrived.
const maxPieces = 600

// ways are those that a case is sent in: its own, and for those that are not large in pieces of
// every size, or of many if it is long.
func ways(c testCase) []way {
	all := []way{{chop: c.chop}}
	if c.large {
		return all
	}
	n := c.size()
	sizes := []int{whole, perFrame, 1, 2, 3, 5, 7, 13, 64, 125, 126, 127, 128, 129, 1000, 1024, 4096, 16384, 32768, 65535}
	if n <= 40 {
		sizes = []int{whole, perFrame}
		for size := 1; size < n; size++ {
			sizes = append(sizes, size)
		}
	}
	smallest := 0
	for _, size := range sizes {
		if size == c.chop || size >= n || size > 0 && n/size > maxPieces {
			continue
		}
		if size > 0 && smallest == 0 {
			smallest = size
		}
		all = append(all, way{chop: size})
	}
	return append(all, way{chop: perFrame, interleave: true}, way{chop: max(smallest, n/100), interleave: true})
}

// direction is which side sends a case's stream.
type direction string

const (
	toBrowser direction = "to-browser"
	toClient  direction = "to-client"
)

// pieces cuts a stream.
func pieces(parts [][]byte, chop int) [][]byte {
	switch chop {
	case perFrame:
		return parts
	case whole:
		return [][]byte{joined(parts)}
	}
	return slices.Collect(slices.Chunk(joined(parts), chop))
}

// check runs a case in one direction in all its ways.
func (c testCase) check(s *session, d direction) error {
	for _, w := range ways(c) {
		if err := c.checkWay(s, d, w); err != nil {
			return fmt.Errorf("%s: %w", w, err)
		}
	}
	return nil
}

// own is what an endpoint sends by itself meanwhile.
func own(masked bool) []byte {
	return joined([][]byte{text("meanwhile").encode(masked), ping("are you there").encode(masked),
		frame{op: opBinary, payload: filler(130)}.encode(masked), pong("").encode(masked)})
}

// checkWay sends a case's stream, has a strict endpoint at the other end say what it has to, and
// sees to it that either side gets exactly what the other has sent, and then its end.
func (c testCase) checkWay(s *session, d direction, w way) (err error) {
	p, err := s.join()
	if err != nil {
		return err
	}
	defer p.close()
	from, to := p.client, p.backend
	if d == toClient {
		from, to = to, from
	}
	judge := &judge{pair: p, side: to, endpoint: endpoint{server: !to.client}}
	judge.filled.L = &p.mu
	if w.interleave {
		judge.queue = append(judge.queue, slices.Collect(slices.Chunk(own(to.client), 3))...)
	}
	p.read(from, nil)
	p.read(to, judge.take)
	judge.writer.Go(judge.write)
	defer judge.stop()

	if err := c.send(p, from, to, judge, w); err != nil {
		return err
	}
	if err := c.end(p, from, to, judge); err != nil {
		return err
	}
	if err := p.same(); err != nil {
		return err
	}
	if got := judge.endpoint.verdict; got != c.expect() {
		return fmt.Errorf("the endpoint has made %+v of the stream, not %+v", got, c.expect())
	}
	return nil
}

// expect is what the endpoint must have made of the case in the end: if the case leaves the
// connection open it is closed afterwards.
func (c testCase) expect() verdict {
	v := c.want
	if v.code == 0 {
		v.code = 1000
	}
	return v
}

// send sends the stream, each piece after the one before has arrived, until the endpoint has closed.
func (c testCase) send(p *pair, from, to *side, j *judge, w way) error {
	for i, piece := range pieces(c.stream(from.client), w.chop) {
		var over bool
		if err := p.await("sending", func() bool {
			over = j.over
			return over || c.large && !c.trips || len(to.got) == len(from.sent) && (!c.trips || j.endpoint.verdict.messages == i && j.told(from))
		}); err != nil {
			return err
		}
		if over {
			return nil
		}
		if err := p.write(from, piece); err != nil {
			return fmt.Errorf("sending: %w", err)
		}
	}
	return p.await("the stream arrives", func() bool { return j.over || len(to.got) == len(from.sent) && j.told(from) })
}

// end brings the connection to its end, whoever begins it.
func (c testCase) end(p *pair, from, to *side, j *judge) error {
	if c.want.code == 0 {
		if err := p.write(from, closing(1000).encode(from.client)); err != nil {
			return fmt.Errorf("saying goodbye: %w", err)
		}
	}
	// The endpoint has closed, and the sender has heard all that it said.
	if err := p.await("the endpoint closes", func() bool { return j.over && j.told(from) }); err != nil {
		return err
	}
	p.mu.Lock()
	verdict, between := j.endpoint.verdict, c.between(from)
	p.mu.Unlock()
	if verdict.failed || !to.client {
		// It ends its stream: at once, since it has failed, or because that is the server's part.
		if err := to.halfClose(); err != nil {
			return fmt.Errorf("ending the endpoint's stream: %w", err)
		}
		if err := p.await("the endpoint's end arrives", func() bool { return from.ended }); err != nil {
			return err
		}
		if verdict.failed && between && !c.closesItself() {
			if err := p.write(from, closing(verdict.code).encode(from.client)); err != nil {
				return fmt.Errorf("answering the close frame: %w", err)
			}
		}
		if err := from.halfClose(); err != nil {
			return fmt.Errorf("ending the sender's stream: %w", err)
		}
		return p.await("the sender's end arrives", func() bool { return to.ended })
	}
	for _, s := range []*side{from, to} { // the server's stream ends first
		if err := s.halfClose(); err != nil {
			return fmt.Errorf("ending the %s's stream: %w", s.name, err)
		}
		if err := p.await("the "+s.name+"'s end arrives", func() bool { return p.other(s).ended }); err != nil {
			return err
		}
	}
	return nil
}

// between tells whether what s has sent of the case ends with a whole frame. The pair's lock is held.
func (c testCase) between(s *side) bool {
	at := 0
	for i, p := range c.stream(s.client) {
		if at += len(p); at == len(s.sent) {
			return c.frames[i].length == 0 && (c.cut == 0 || i < len(c.frames)-1)
		}
	}
	return false
}

// judge is the endpoint at a side, and the writer of what it says.
type judge struct {
	pair     *pair
	side     *side
	endpoint endpoint // the reader's; its verdict is written under the lock

	// guarded by the pair's mu
	filled sync.Cond
	queue  [][]byte // to be written
	over   bool     // the endpoint has closed or failed
	done   bool     // nothing more will be written

	writer sync.WaitGroup
}

// take is what the side's reader calls.
func (j *judge) take(b []byte) {
	j.pair.mu.Lock()
	defer j.pair.mu.Unlock()
	if out := j.endpoint.take(b); len(out) > 0 {
		j.queue = append(j.queue, out)
		j.filled.Signal()
	}
	if j.endpoint.verdict.code != 0 {
		j.over = true
	}
}

// told tells whether the sender has got all that the endpoint has to say so far.
func (j *judge) told(from *side) bool {
	return len(j.queue) == 0 && len(from.got) == len(j.side.sent)
}

// write writes what is queued, a piece after the other side has got the one before.
func (j *judge) write() {
	p := j.pair
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for len(j.queue) == 0 && !j.done {
			j.filled.Wait()
		}
		if j.done {
			return
		}
		next := j.queue[0]
		j.side.sent = append(j.side.sent, next...)
		j.queue = j.queue[1:]
		p.mu.Unlock()
		_, err := j.side.conn.Write(next)
		p.mu.Lock()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				j.side.err = fmt.Errorf("writing: %w", err)
			}
			p.changed.Broadcast()
			return
		}
		for other := p.other(j.side); len(other.got) < len(j.side.sent) && !j.done && !p.late && len(next) < 1<<10; {
			p.changed.Wait()
		}
		p.changed.Broadcast()
	}
}

// stop ends the writer.
func (j *judge) stop() {
	j.pair.mu.Lock()
	j.done = true
	j.filled.Signal()
	j.pair.changed.Broadcast()
	j.pair.mu.Unlock()
	_ = j.side.conn.SetWriteDeadline(time.Unix(1, 0))
	j.writer.Wait()
}
