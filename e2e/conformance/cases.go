//go:build linux

package main

import (
	"bytes"
	"fmt"
	"strings"
)

// testCase is a stream that one side sends, and what a strict endpoint at the other side must make
// of it. Through a relay that is transparent it makes the same of it.
type testCase struct {
	id, title string
	frames    []frame
	cut       int  // bytes of the last frame that are never sent
	chop      int  // how the case itself is sent: whole, perFrame, or so many bytes at a time
	trips     bool // each frame waits until the one before has come back
	large     bool // sent in its own way only
	want      verdict
}

// Ways to send a stream other than so many bytes at a time.
const (
	whole    = 0
	perFrame = -1
)

// stream gives the bytes of a case, frame by frame.
func (c testCase) stream(masked bool) [][]byte {
	parts := make([][]byte, len(c.frames))
	for i, f := range c.frames {
		parts[i] = f.encode(masked)
	}
	if c.cut > 0 {
		last := &parts[len(parts)-1]
		*last = (*last)[:len(*last)-c.cut]
	}
	return parts
}

func stays(messages, pongs int) verdict { return verdict{messages: messages, pongs: pongs} }
func closes(code, messages, pongs int) verdict {
	return verdict{messages: messages, pongs: pongs, code: code}
}
func fails(code, messages, pongs int) verdict {
	return verdict{messages: messages, pongs: pongs, code: code, failed: true}
}

// group is a number of cases about one thing. The numbers are those of the Autobahn suite, whose
// cases are restated here from the RFC.
type group struct {
	id, title string
	cases     []testCase
}

func groups() []group {
	return []group{
		{"1", "framing", framing()},
		{"2", "pings and pongs", pings()},
		{"3", "reserved bits", reservedBits()},
		{"4", "reserved opcodes", reservedOpcodes()},
		{"5", "fragments", fragments()},
		{"6", "UTF-8", texts()},
		{"7", "closing", closings()},
		{"9", "limits", limits()},
		{"10", "automatic fragments", []testCase{{id: "10.1", title: "64 KiB of text in frames of 1,300 bytes", frames: cutUp(opText, filler(65536), 1300), chop: perFrame, want: stays(1, 0)}}},
	}
}

func text(s string) frame         { return frame{op: opText, payload: []byte(s)} }
func ping(s string) frame         { return frame{op: opPing, payload: []byte(s)} }
func pong(s string) frame         { return frame{op: opPong, payload: []byte(s)} }
func closing(code int) frame      { return frame{op: opClose, payload: closePayload(code, "")} }
func first(s string) frame        { return frame{op: opText, payload: []byte(s), more: true} }
func next(s string) frame         { return frame{payload: []byte(s), more: true} }
func last(s string) frame         { return frame{payload: []byte(s)} }
func list(f ...frame) []frame     { return f }
func (f frame) bits(b byte) frame { f.rsv = b; return f }

// filler is text that repeats itself only after a long time, so that no shift goes unseen.
func filler(n int) []byte {
	const letters = "abcdefghijklmnopqrstuvwxyz-0123456789_ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	out := make([]byte, n)
	x := uint32(n)*2654435761 + 1
	for i := range out {
		x = x*1664525 + 1013904223
		out[i] = letters[x>>26]
	}
	return out
}

// cutUp is a message in frames of n bytes.
func cutUp(op byte, payload []byte, n int) []frame {
	var out []frame
	for from := 0; from < len(payload); from += n {
		out = append(out, frame{op: op, payload: payload[from:min(from+n, len(payload))], more: from+n < len(payload)})
		op = opContinuation
	}
	return out
}

func framing() (cases []testCase) {
	for i, op := range []byte{opText, opBinary} {
		name := []string{"text", "binary"}[i]
		for j, n := range []int{0, 125, 126, 127, 128, 65535, 65536} {
			cases = append(cases, testCase{id: fmt.Sprintf("1.%d.%d", i+1, j+1), title: fmt.Sprintf("%s of %d bytes", name, n),
				frames: list(frame{op: op, payload: filler(n)}), want: stays(1, 0)})
		}
		cases = append(cases, testCase{id: fmt.Sprintf("1.%d.8", i+1), title: name + " of 65,536 bytes, 997 at a time",
			frames: list(frame{op: op, payload: filler(65536)}), chop: 997, want: stays(1, 0)})
	}
	return cases
}

func pings() []testCase {
	binary := "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
	var ten []frame
	for i := range 10 {
		ten = append(ten, ping(fmt.Sprint("ping ", i)))
	}
	return []testCase{
		{id: "2.1", title: "a ping without payload", frames: list(ping("")), want: stays(0, 1)},
		{id: "2.2", title: "a ping with text", frames: list(ping("hello there")), want: stays(0, 1)},
		{id: "2.3", title: "a ping with bytes that are no text", frames: list(ping(binary)), want: stays(0, 1)},
		{id: "2.4", title: "a ping with 125 bytes", frames: list(ping(strings.Repeat("\xfe", 125))), want: stays(0, 1)},
		{id: "2.5", title: "a ping with 126 bytes is too long", frames: list(ping(strings.Repeat("\xfe", 126))), want: fails(codeProtocol, 0, 0)},
		{id: "2.6", title: "a ping with 125 bytes, one at a time", frames: list(ping(strings.Repeat("\xfe", 125))), chop: 1, want: stays(0, 1)},
		{id: "2.7", title: "a pong that nobody asked for", frames: list(pong("")), want: stays(0, 0)},
		{id: "2.8", title: "a pong with payload that nobody asked for", frames: list(pong("unasked")), want: stays(0, 0)},
		{id: "2.9", title: "such a pong, then a ping", frames: list(pong("unasked"), ping("asked")), chop: perFrame, want: stays(0, 1)},
		{id: "2.10", title: "ten pings", frames: ten, want: stays(0, 10)},
		{id: "2.11", title: "ten pings, one byte at a time", frames: ten, chop: 1, want: stays(0, 10)},
	}
}

func reservedBits() []testCase {
	hello := text("hello")
	return []testCase{
		{id: "3.1", title: "bit 3 in a text", frames: list(hello.bits(1)), want: fails(codeProtocol, 0, 0)},
		{id: "3.2", title: "bit 2 in a text between others", frames: list(hello, hello.bits(2), ping("")), want: fails(codeProtocol, 1, 0)},
		{id: "3.3", title: "bits 2 and 3 in a text after another", frames: list(hello, hello.bits(3), ping("")), chop: perFrame, want: fails(codeProtocol, 1, 0)},
		{id: "3.4", title: "bit 1 in a text after another, one byte at a time", frames: list(hello, hello.bits(4), ping("")), chop: 1, want: fails(codeProtocol, 1, 0)},
		{id: "3.5", title: "bits 1 and 3 in a binary", frames: list(frame{op: opBinary, rsv: 5, payload: []byte("\x00\xff")}), want: fails(codeProtocol, 0, 0)},
		{id: "3.6", title: "bits 1 and 2 in a ping", frames: list(ping("hello").bits(6)), want: fails(codeProtocol, 0, 0)},
		{id: "3.7", title: "all of them in a close frame", frames: list(closing(1000).bits(7)), want: fails(codeProtocol, 0, 0)},
	}
}

func reservedOpcodes() (cases []testCase) {
	for i, ops := range [][]byte{{3, 4, 5, 6, 7}, {11, 12, 13, 14, 15}} {
		for j, op := range ops {
			c := testCase{id: fmt.Sprintf("4.%d.%d", i+1, j+1), title: fmt.Sprintf("opcode %d", op), want: fails(codeProtocol, 1, 0),
				frames: list(text("hello"), frame{op: op, payload: []byte("payload")[:j]}, ping("")), chop: []int{whole, perFrame, 1}[j%3]}
			if j == 0 { // nothing before it, and nothing in it
				c.frames, c.want = c.frames[1:], fails(codeProtocol, 0, 0)
			}
			cases = append(cases, c)
		}
	}
	return cases
}

func fragments() (cases []testCase) {
	two := list(first("fragment 1, "), last("fragment 2"))
	between := list(first("fragment 1, "), ping("between"), last("fragment 2"))
	orphan, orphanMore := list(last("nothing to continue"), text("hello")), list(next("nothing to continue"), text("hello"))
	var slow []frame
	for i := range 5 {
		slow = append(slow, frame{op: []byte{opText, opContinuation}[min(i, 1)], more: i < 4, payload: fmt.Appendf(nil, "fragment %d", i)})
		if i < 4 {
			slow = append(slow, ping(fmt.Sprint("after ", i)))
		}
	}
	all := []struct {
		title  string
		frames []frame
		want   verdict
		chops  []int
	}{
		{"a ping in two frames", list(frame{op: opPing, more: true, payload: []byte("a")}, last("b")), fails(codeProtocol, 0, 0), []int{whole}},
		{"a pong in two frames", list(frame{op: opPong, more: true, payload: []byte("a")}, last("b")), fails(codeProtocol, 0, 0), []int{whole}},
		{"a text in two frames", two, stays(1, 0), []int{whole, perFrame, 1}},
		{"a text in two frames with a ping between", between, stays(1, 1), []int{whole, perFrame, 1}},
		{"a last fragment of nothing", orphan, fails(codeProtocol, 0, 0), []int{whole, perFrame, 1}},
		{"a fragment of nothing", orphanMore, fails(codeProtocol, 0, 0), []int{whole, perFrame, 1}},
		{"a fragment after a text is over", append(append([]frame{}, two...), next("3"), text("hello"), last("4")), fails(codeProtocol, 1, 0), []int{whole}},
		{"texts after fragments of nothing", list(next("1"), text("2"), next("3"), text("4")), fails(codeProtocol, 0, 0), []int{whole}},
		{"texts after last fragments of nothing", list(last("1"), text("2"), last("3"), text("4")), fails(codeProtocol, 0, 0), []int{whole}},
		{"a text within a text", list(first("fragment 1"), text("fragment 2")), fails(codeProtocol, 0, 0), []int{whole}},
		{"a text in five frames with pings between", slow, stays(1, 4), []int{perFrame, 1}},
	}
	for _, c := range all {
		for _, chop := range c.chops {
			cases = append(cases, testCase{id: fmt.Sprintf("5.%d", len(cases)+1), title: c.title + how(chop), frames: c.frames, chop: chop, want: c.want})
		}
	}
	return cases
}

// how says in words how a stream is sent.
func how(chop int) string {
	switch chop {
	case whole:
		return ""
	case perFrame:
		return ", frame by frame"
	case 1:
		return ", byte by byte"
	}
	return fmt.Sprintf(", %d bytes at a time", chop)
}

// closings are the cases of the closing handshake.
func closings() (cases []testCase) {
	add := func(section int, title string, want verdict, frames ...frame) {
		n := 1
		for _, c := range cases {
			if strings.HasPrefix(c.id, fmt.Sprintf("7.%d.", section)) {
				n++
			}
		}
		cases = append(cases, testCase{id: fmt.Sprintf("7.%d.%d", section, n), title: title, frames: frames, want: want})
	}
	hello := text("hello")
	raw := func(payload string) frame { return frame{op: opClose, payload: []byte(payload)} }
	add(1, "a text, then a close frame", closes(1000, 1, 0), hello, closing(1000))
	add(1, "two close frames", closes(1000, 0, 0), closing(1000), closing(1000))
	add(1, "a ping after the close frame is not answered", closes(1000, 0, 0), closing(1000), ping("late"))
	add(1, "a text after the close frame is not answered", closes(1000, 0, 0), closing(1000), hello)
	add(1, "a close frame within a text", closes(1000, 0, 0), first("fragment 1"), closing(1000), last("fragment 2"))
	add(1, "256 KiB, a close frame and a ping", closes(1000, 1, 0), frame{op: opText, payload: filler(256 << 10)}, closing(1000), ping("late"))
	add(3, "a close frame without payload", closes(codeNone, 0, 0), raw(""))
	add(3, "a close frame with half a code", fails(codeProtocol, 0, 0), raw("a"))
	add(3, "a close frame with a code", closes(1000, 0, 0), closing(1000))
	add(3, "a close frame with a reason", closes(1000, 0, 0), raw("\x03\xe8goodbye"))
	add(3, "a close frame with the longest reason", closes(1000, 0, 0), raw("\x03\xe8"+strings.Repeat("*", 123)))
	add(3, "a close frame with too long a reason", fails(codeProtocol, 0, 0), raw("\x03\xe8"+strings.Repeat("*", 124)))
	add(5, "a reason that is not UTF-8", fails(codeInvalid, 0, 0), raw("\x03\xe8"+"κόσμε\xed\xa0\x80edited"))
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		add(7, fmt.Sprintf("code %d", code), closes(code, 0, 0), closing(code))
	}
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		add(9, fmt.Sprintf("code %d may not be sent", code), fails(codeProtocol, 0, 0), closing(code))
	}
	for _, code := range []int{5000, 65535} {
		add(13, fmt.Sprintf("code %d is nobody's", code), fails(codeProtocol, 0, 0), closing(code))
	}
	return cases
}

func limits() (cases []testCase) {
	const kib, mib = 1 << 10, 1 << 20
	kinds := []struct {
		name string
		op   byte
	}{{"text", opText}, {"binary", opBinary}}
	section := 0
	add := func(n int, title string, frames []frame, chop int, trips bool) {
		messages := 1
		if trips {
			messages = len(frames)
		}
		cases = append(cases, testCase{id: fmt.Sprintf("9.%d.%d", section, n+1), title: title, frames: frames, chop: chop, trips: trips, large: true, want: stays(messages, 0)})
	}
	for _, kind := range kinds {
		section++
		for i, n := range []int{64 * kib, 256 * kib, mib, 4 * mib, 8 * mib, 16 * mib} {
			add(i, fmt.Sprintf("%s of %d KiB", kind.name, n/kib), list(frame{op: kind.op, payload: filler(n)}), whole, false)
		}
	}
	for _, kind := range kinds {
		section++
		payload := filler(4 * mib)
		for i, n := range []int{64, 256, kib, 4 * kib, 16 * kib, 64 * kib, 256 * kib, mib, 4 * mib} {
			add(i, fmt.Sprintf("%s of 4 MiB in frames of %d bytes", kind.name, n), cutUp(kind.op, payload, n), whole, false)
		}
	}
	for _, kind := range kinds {
		section++
		payload := filler(mib)
		for i, n := range []int{64, 128, 256, 512, 1024, 2048} {
			add(i, fmt.Sprintf("%s of 1 MiB, %d bytes at a time", kind.name, n), list(frame{op: kind.op, payload: payload}), n, false)
		}
	}
	for _, kind := range kinds {
		section++
		for i, n := range []int{0, 16, 64, 256, 1024, 4096} {
			one := frame{op: kind.op, payload: filler(n)}
			many := make([]frame, 1000)
			for j := range many {
				many[j] = one
			}
			add(i, fmt.Sprintf("1,000 round trips with %s of %d bytes", kind.name, n), many, perFrame, true)
		}
	}
	return cases
}

// size is the number of a case's bytes.
func (c testCase) size() int {
	n := 0
	for _, p := range c.stream(true) {
		n += len(p)
	}
	return n
}

// closesItself tells whether the sender says goodbye within the case.
func (c testCase) closesItself() bool {
	for _, f := range c.frames {
		if f.op == opClose {
			return true
		}
	}
	return false
}

func joined(parts [][]byte) []byte { return bytes.Join(parts, nil) }
