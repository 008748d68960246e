package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

var errNotJSON = errors.New("not a JSON object")

// maxNesting bounds how deep values may be nested that are skipped without being read.
const maxNesting = 10_000

// envelope is what the service reads of a v1 message. Its slices lie in the message.
type envelope struct {
	kind    []byte // the type, unquoted; nil: none, or no string
	session []byte // sessionId, unquoted; nil: none, or no string
	data    []byte // the raw value; nil: none
	id      []byte // the raw value; nil: none
}

// openEnvelope finds the fields of a JSON object without decoding the values between them: the
// cost of a large one is that of looking for its quotation marks. Of a field that occurs more
// than once, the last counts, as for every reader of JSON. It checks structure only: brackets
// and strings are in balance, numbers and words are not looked at.
func openEnvelope(text []byte) (envelope, error) {
	var e envelope
	err := eachField(text, func(key, value []byte) {
		switch string(key) {
		case "type":
			e.kind = unquote(value)
		case "sessionId":
			e.session = unquote(value)
		case "data":
			e.data = value
		case "id":
			e.id = value
		}
	})
	return e, err
}

// eachField calls see for every field of a JSON object, with its name and its raw value.
func eachField(text []byte, see func(key, value []byte)) error {
	i := space(text, 0)
	if i >= len(text) || text[i] != '{' {
		return errNotJSON
	}
	i = space(text, i+1)
	if i < len(text) && text[i] == '}' {
		return atEnd(text, i+1)
	}
	for {
		end := skipString(text, i)
		if end < 0 {
			return errNotJSON
		}
		key := unquote(text[i:end])
		i = space(text, end)
		if i >= len(text) || text[i] != ':' {
			return errNotJSON
		}
		i = space(text, i+1)
		end = skipValue(text, i)
		if end <= i {
			return errNotJSON
		}
		see(key, text[i:end])
		i = space(text, end)
		if i >= len(text) {
			return errNotJSON
		}
		switch text[i] {
		case '}':
			return atEnd(text, i+1)
		case ',':
			i = space(text, i+1)
		default:
			return errNotJSON
		}
	}
}

// atEnd checks that nothing but white space follows.
func atEnd(text []byte, i int) error {
	if space(text, i) != len(text) {
		return errNotJSON
	}
	return nil
}

// space gives the first place from i on that is no white space.
func space(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\t' || text[i] == '\r') {
		i++
	}
	return i
}

// skipString gives the place after the string that begins at i; negative: there is none.
func skipString(text []byte, i int) int {
	if i >= len(text) || text[i] != '"' {
		return -1
	}
	for i++; ; {
		at := bytes.IndexByte(text[i:], '"')
		if at < 0 {
			return -1
		}
		at += i
		// The mark is escaped if an odd number of backslashes stands before it.
		before := at
		for before > i && text[before-1] == '\\' {
			before--
		}
		if (at-before)%2 == 0 {
			return at + 1
		}
		i = at + 1
	}
}

// skipValue gives the place after the value that begins at i; negative: there is none.
func skipValue(text []byte, i int) int {
	if i >= len(text) {
		return -1
	}
	switch text[i] {
	case '"':
		return skipString(text, i)
	case '{', '[':
		return skipNested(text, i)
	}
	for i < len(text) {
		switch text[i] {
		case ',', '}', ']', ' ', '\n', '\t', '\r':
			return i
		case '"', '{', '[', ':':
			return -1
		}
		i++
	}
	return i
}

// skipNested gives the place after the object or array that begins at i; negative: it does not
// end, or its brackets do not match.
func skipNested(text []byte, i int) int {
	var few [64]byte
	open := few[:0]
	for i < len(text) {
		switch c := text[i]; c {
		case '"':
			if i = skipString(text, i); i < 0 {
				return -1
			}
			continue
		case '{', '[':
			if len(open) == maxNesting {
				return -1
			}
			open = append(open, c)
		case '}', ']':
			if open[len(open)-1] != c-2 { // in ASCII an opening bracket is two before its closing one
				return -1
			}
			if open = open[:len(open)-1]; len(open) == 0 {
				return i + 1
			}
		}
		i++
	}
	return -1
}

// unquote gives the content of a JSON string; nil if the value is none.
func unquote(value []byte) []byte {
	if len(value) < 2 || value[0] != '"' {
		return nil
	}
	inner := value[1 : len(value)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	var s string
	if json.Unmarshal(value, &s) != nil {
		return nil
	}
	return []byte(s)
}

// commandID is a client's id of a command, so that the answer's can be told to be the same
// although a container writes numbers and strings its own way. The zero value is no id.
type commandID struct {
	number int64
	text   string // of what is no whole number of at most 15 digits, or "n" for one that is
}

// idOf reads a raw id. Whole numbers, which nearly all are, cost no memory.
func idOf(raw []byte) commandID {
	const plain = "n"
	if len(raw) == 0 {
		return commandID{}
	}
	digits := raw
	if digits[0] == '-' {
		digits = digits[1:]
	}
	if 0 < len(digits) && len(digits) <= 15 {
		var n int64
		whole := true
		for _, c := range digits {
			if whole = '0' <= c && c <= '9'; !whole {
				break
			}
			n = 10*n + int64(c-'0')
		}
		if whole {
			if raw[0] == '-' {
				n = -n
			}
			return commandID{number: n, text: plain}
		}
	}
	switch c := raw[0]; {
	case c == '"':
		return commandID{text: `"` + string(unquote(raw))}
	case c == '-' || '0' <= c && c <= '9':
		// 1e3, 1.0 and 2^53+1 come back as JavaScript prints them.
		if f, err := strconv.ParseFloat(string(raw), 64); err == nil {
			if f == float64(int64(f)) && f < 1e15 && f > -1e15 {
				return commandID{number: int64(f), text: plain}
			}
			return commandID{text: strconv.FormatFloat(f, 'g', -1, 64)}
		}
	}
	return commandID{text: strings.TrimSpace(string(raw))}
}

// answerID finds the id in an answer's data.
func answerID(data []byte) []byte {
	const first = `{"id":`
	if len(data) > len(first) && string(data[:len(first)]) == first {
		if end := skipValue(data, len(first)); end > len(first) {
			return data[len(first):end]
		}
	}
	e, err := openEnvelope(data)
	if err != nil {
		return nil
	}
	return e.id
}
