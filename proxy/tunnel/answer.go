package tunnel

import (
	"bytes"
	"strings"
)

// plainAnswer tells whether a head is a good 101 as servers usually write it. It says yes to
// nothing that net/http and checkAnswer would not: they judge what it does not know.
func plainAnswer(head []byte, key string) bool {
	rest, ok := bytes.CutPrefix(head, []byte("HTTP/1.1 101 "))
	if !ok {
		return false
	}
	reason, rest, _ := bytes.Cut(rest, crlf)
	if !plainText(reason) {
		return false
	}
	accepts, upgrades, connects := 0, 0, 0
	for {
		line, more, found := bytes.Cut(rest, crlf)
		if len(line) == 0 {
			return found && len(more) == 0 && accepts == 1 && upgrades == 1 && connects == 1
		}
		name, value, ok := plainHeader(line)
		switch rest = more; {
		case !ok:
			return false
		case equalFold(name, "Upgrade"):
			upgrades++
			ok = equalFold(value, "websocket")
		case equalFold(name, "Connection"):
			connects++
			ok = equalFold(value, "upgrade")
		case equalFold(name, "Sec-WebSocket-Accept"):
			accepts++
			ok = string(value) == acceptKey(key)
		default:
			ok = equalFold(name, "Date") || equalFold(name, "Server")
		}
		if !ok {
			return false
		}
	}
}

var crlf = []byte("\r\n") //nolint:gochecknoglobals // a constant

// plainHeader cuts a line into a name and what it stands for.
func plainHeader(line []byte) (name, value []byte, ok bool) {
	name, value, ok = bytes.Cut(line, []byte(":"))
	value = bytes.Trim(value, " ")
	return name, value, ok && plainText(value)
}

// plainText tells whether there is nothing but printable ASCII.
func plainText(text []byte) bool {
	for _, c := range text {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

func equalFold(got []byte, want string) bool {
	return len(got) == len(want) && strings.EqualFold(string(got), want)
}
