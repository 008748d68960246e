//go:build linux

package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// texts are the cases of UTF-8: some about where a text is cut, and families of sequences about
// what is UTF-8, each put between letters.
func texts() []testCase {
	const word = "κόσμε-\U0001f30d-ß"
	var bytewise, mixed []frame
	for i := range len(word) {
		bytewise = append(bytewise, frame{op: []byte{opText, opContinuation}[min(i, 1)], payload: []byte{word[i]}, more: i < len(word)-1})
	}
	for from, n := 0, 1; from < len(word); from, n = from+n, n%4+1 {
		to := min(from+n, len(word))
		mixed = append(mixed, frame{op: []byte{opText, opContinuation}[min(from, 1)], payload: []byte(word[from:to]), more: to < len(word)})
	}
	const bad = "κόσμε\xed\xa0\x80edited" // half a surrogate pair
	var badBytewise []frame
	for i := range len(bad) {
		badBytewise = append(badBytewise, frame{op: []byte{opText, opContinuation}[min(i, 1)], payload: []byte{bad[i]}, more: i < len(bad)-1})
	}
	const good, tooHigh, rest = "κόσμε", "\xf4\x90", "\x80\x80edited"
	cases := []testCase{
		{id: "6.1.1", title: "no text", frames: list(text("")), want: stays(1, 0)},
		{id: "6.1.2", title: "no text in three frames", frames: list(first(""), next(""), last("")), want: stays(1, 0)},
		{id: "6.1.3", title: "text in the second of three frames", frames: list(first(""), next("middle"), last("")), want: stays(1, 0)},
		{id: "6.2.1", title: "characters of all lengths", frames: list(text(word)), want: stays(1, 0)},
		{id: "6.2.2", title: "the same, cut between two characters", frames: list(first(word[:4]), last(word[4:])), want: stays(1, 0)},
		{id: "6.2.3", title: "the same, one byte in each frame", frames: bytewise, want: stays(1, 0)},
		{id: "6.2.4", title: "the same, cut within characters", frames: mixed, want: stays(1, 0)},
		{id: "6.3.1", title: "half a surrogate pair", frames: list(text(bad)), want: fails(codeInvalid, 0, 0)},
		{id: "6.3.2", title: "the same, one byte in each frame", frames: badBytewise, want: fails(codeInvalid, 0, 0)},
		// The rest is never sent: whoever waits for it does not fail.
		{id: "6.4.1", title: "a bad fragment is told at once", frames: list(first(good), next(tooHigh)), chop: perFrame, want: fails(codeInvalid, 0, 0)},
		{id: "6.4.2", title: "the same, the last byte by itself", frames: list(first(good), next(tooHigh[:1]), next(tooHigh[1:])), chop: perFrame, want: fails(codeInvalid, 0, 0)},
		{id: "6.4.3", title: "bad bytes within a frame are told at once", frames: list(text(good + tooHigh + rest)), cut: len(rest), want: fails(codeInvalid, 0, 0)},
		{id: "6.4.4", title: "the same, byte by byte", frames: list(text(good + tooHigh + rest)), cut: len(rest), chop: 1, want: fails(codeInvalid, 0, 0)},
	}
	for i, f := range families() {
		for j, s := range f.sequences {
			want := fails(codeInvalid, 0, 0)
			if f.good {
				want = stays(1, 0)
			}
			payload := "a" + s + "z"
			if f.open {
				payload = "a" + s
			}
			cases = append(cases, testCase{id: fmt.Sprintf("6.%d.%d", i+5, j+1), title: fmt.Sprintf("%s: % x", f.title, s), frames: list(text(payload)), want: want})
		}
	}
	return cases
}

// family is a number of sequences that are all UTF-8, or all not.
type family struct {
	title     string
	good      bool
	open      bool // the text ends with it
	sequences []string
}

func families() []family {
	runes := func(rs ...rune) (out []string) {
		for _, r := range rs {
			out = append(out, string(r))
		}
		return out
	}
	// surrogate is what UTF-8 would make of half a pair, if it might.
	surrogate := func(r int) string {
		return string([]byte{0xed, 0x80 | byte(r>>6&0x3f), 0x80 | byte(r&0x3f)})
	}
	var continuations, all []string
	for n := 2; n <= 7; n++ {
		continuations = append(continuations, strings.Repeat("\x80\xbf", 4)[:n])
	}
	var every strings.Builder
	for b := 0x80; b <= 0xbf; b++ {
		every.WriteByte(byte(b))
	}
	continuations = append(continuations, every.String())
	for _, edge := range [][2]int{{0xc2, 0xdf}, {0xe0, 0xef}, {0xf0, 0xf4}} {
		var row strings.Builder
		for b := edge[0]; b <= edge[1]; b++ {
			row.WriteString(string([]byte{byte(b), ' '}))
		}
		all = append(all, row.String(), string([]byte{byte(edge[0]), ' '}), string([]byte{byte(edge[1]), ' '}))
	}
	never := []string{"\xfe", "\xff", "\xfe\xfe\xff\xff", "\xc0", "\xc1"}
	for b := 0xf5; b <= 0xfd; b++ {
		never = append(never, string([]byte{byte(b)}))
	}
	var singles, pairs, strangers []string
	for _, r := range []int{0xd800, 0xdb7f, 0xdb80, 0xdbff, 0xdc00, 0xdf80, 0xdfff} {
		singles = append(singles, surrogate(r))
	}
	for _, high := range []int{0xd800, 0xdb7f, 0xdb80, 0xdbff} {
		for _, low := range []int{0xdc00, 0xdfff} {
			pairs = append(pairs, surrogate(high)+surrogate(low))
		}
	}
	for plane := rune(0); plane <= 16; plane++ {
		strangers = append(strangers, runes(plane<<16|0xfffe, plane<<16|0xffff)...)
	}
	return []family{
		{"the first character of each length", true, false, runes(0, 0x80, 0x800, 0x10000)},
		{"the last character of each length", true, false, runes(0x7f, 0x7ff, 0xffff, utf8.MaxRune)},
		{"characters at other borders", true, false, runes(0xd7ff, 0xe000, 0xfffd, 0xfeff, 0x1f600, 0x2028, 0xfdd0, 0xfdef)},
		{"beyond the last character", false, false, []string{"\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xf7\xbf\xbf\xbf"}},
		{"a byte that continues nothing", false, false, []string{"\x80", "\xbf"}},
		{"bytes that continue nothing", false, false, continuations},
		{"first bytes alone", false, false, all},
		{"the last byte is missing", false, true, []string{"\xc2", "\xdf", "\xe0\xa0", "\xef\xbf", "\xf0\x90\x80", "\xf4\x8f\xbf"}},
		{"two bytes are missing", false, true, []string{"\xe0", "\xef", "\xf0\x90", "\xf4\x8f"}},
		{"three bytes are missing", false, true, []string{"\xf0", "\xf4"}},
		{"cut off one after another", false, true, []string{"\xc2\xe0\xa0\xf0\x90\x80\xdf\xef\xbf\xf4\x8f\xbf"}},
		{"bytes that never occur", false, false, never},
		{"a slash that is too long", false, false, []string{"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf"}},
		{"the last of the too long", false, false, []string{"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf"}},
		{"a zero that is too long", false, false, []string{"\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80"}},
		{"half a surrogate pair", false, false, singles},
		{"a surrogate pair", false, false, pairs},
		{"characters that are none", true, false, strangers},
		{"sequences of five and six bytes", false, false, []string{"\xf8\x88\x80\x80\x80", "\xfb\xbf\xbf\xbf\xbf", "\xfc\x84\x80\x80\x80\x80", "\xfd\xbf\xbf\xbf\xbf\xbf"}},
	}
}
