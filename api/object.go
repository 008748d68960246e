package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/wallcrawler/wallcrawler/state"
)

// A reader takes the value of the field at that path. It never sees null, which means absent.
type reader func(at string, raw json.RawMessage) error

func text(into *string, limit int, good func(string) bool, form string) reader {
	return func(at string, raw json.RawMessage) error {
		if json.Unmarshal(raw, into) != nil {
			return wrongType(at, "a string", raw)
		}
		if len(*into) > limit {
			return invalid(fmt.Sprintf("%s has %d bytes: at most %d are taken", at, len(*into), limit), "")
		}
		if *into != "" && good != nil && !good(*into) {
			return invalid(at+" must be "+form, "")
		}
		return nil
	}
}

func boolean(into *bool) reader {
	return func(at string, raw json.RawMessage) error {
		if json.Unmarshal(raw, into) != nil {
			return wrongType(at, "true or false", raw)
		}
		return nil
	}
}

func pixels(into *int) reader {
	return func(at string, raw json.RawMessage) error {
		if json.Unmarshal(raw, into) != nil || *into < 1 || *into > maxViewport {
			return invalid(fmt.Sprintf("%s must be a whole number of pixels from 1 to %d, not %s", at, maxViewport, show(raw)), "")
		}
		return nil
	}
}

// atMost accepts the field at those values only, written compactly, and then does nothing.
func atMost(supported string, values ...string) reader {
	return func(at string, raw json.RawMessage) error {
		var compact bytes.Buffer
		if err := json.Compact(&compact, raw); err == nil && slices.Contains(values, compact.String()) {
			return nil
		}
		return unsupported(fmt.Sprintf("%s is supported as %s only", at, strings.Join(values, " or ")), supported)
	}
}

// never refuses a field of the shape that we do not have: null alone passes.
func never(supported string) reader {
	return func(at string, _ json.RawMessage) error {
		return unsupported(at+" is not supported", supported)
	}
}

func unsupported(message, supported string) error {
	return refuseField(message, "supported: "+supported)
}

func refuseField(message, hint string) error {
	return &state.Refusal{Err: errUnsupported, Message: message, Hint: hint}
}

func wrongType(at, want string, raw json.RawMessage) error {
	return invalid(fmt.Sprintf("%s must be %s, not %s", nonEmpty(at, "the body"), want, kindOf(raw)), "")
}

// readObject gives each member of an object to its reader. Unknown and repeated ones are
// refused by name.
func readObject(at string, raw json.RawMessage, supported string, readers map[string]reader) error {
	list, err := members(at, raw)
	if err != nil {
		return err
	}
	for _, m := range list {
		path := m.name
		if at != "" {
			path = at + "." + m.name
		}
		read, known := readers[m.name]
		if !known {
			return unsupported(quotePath(path)+" is not supported", supported)
		}
		if string(m.value) == "null" {
			continue
		}
		if err := read(path, m.value); err != nil {
			return err
		}
	}
	return nil
}

type member struct {
	name  string
	value json.RawMessage
}

// members lists an object's members in order.
func members(at string, raw json.RawMessage) ([]member, error) {
	if kindOf(raw) != "an object" {
		return nil, wrongType(at, "an object", raw)
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if _, err := decoder.Token(); err != nil {
		return nil, malformed(raw, err)
	}
	var list []member
	seen := map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, malformed(raw, err)
		}
		name, _ := token.(string)
		m := member{name: name}
		if err := decoder.Decode(&m.value); err != nil {
			return nil, malformed(raw, err)
		}
		if seen[name] {
			return nil, invalid(fmt.Sprintf("%s occurs twice in %s", quotePath(name), nonEmpty(at, "the body")), "")
		}
		seen[name] = true
		list = append(list, m)
	}
	return list, nil
}

// checkJSON tells whether body is one JSON value in UTF-8.
func checkJSON(body []byte) error {
	if !utf8.Valid(body) {
		return invalid("the body is not UTF-8", "")
	}
	var whole json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		return malformed(body, err)
	}
	return nil
}

// malformed names the place where JSON breaks off.
func malformed(body []byte, err error) error {
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		before := body[:min(int(syntax.Offset), len(body))]
		line := 1 + bytes.Count(before, []byte("\n"))
		column := len(before) - (bytes.LastIndexByte(before, '\n') + 1)
		return invalid(fmt.Sprintf("the body is not JSON: %s at line %d, column %d", syntax.Error(), line, column), "")
	}
	return invalid("the body is not JSON", "")
}

// kindOf names a JSON value's type.
func kindOf(raw json.RawMessage) string {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	if len(raw) == 0 {
		return "empty"
	}
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}

// show quotes a short number as it is, and of all else the type: texts may be anything.
func show(raw json.RawMessage) string {
	if kind := kindOf(raw); kind != "a number" || len(raw) > 24 {
		return kind
	}
	return string(raw)
}

// quotePath makes a foreign name fit for an error.
func quotePath(path string) string {
	if len(path) > 100 {
		path = strings.ToValidUTF8(path[:100], "") + "…"
	}
	quoted := strconv.Quote(path)
	if quoted == `"`+path+`"` {
		return path
	}
	return quoted
}

func nonEmpty(text, instead string) string {
	if text == "" {
		return instead
	}
	return text
}
