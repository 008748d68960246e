package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// The statuses that requesters write into documents. Everything between is ours.
const (
	StatusPending    = "pending"
	StatusTerminated = "terminated" // a final wish: end the session
	StatusCleaned    = "cleaned"    // a final wish: end the session
)

// DefaultTimeout is the length of a session whose document names none.
const DefaultTimeout = time.Hour

// Document is session:{id} as read from the store: the requester's half of a session.
type Document struct {
	ID      string
	Text    []byte        // as stored; nil when missing
	TTL     time.Duration // what remains; zero when the key has none
	Missing bool          // there is no such key
	Err     error         // the value is not a session document: why. Spec is empty then

	Spec Spec
}

// Spec is what we understand of a document.
type Spec struct {
	SessionID       string          `json:"sessionId"`
	UserID          string          `json:"userId"`
	Status          string          `json:"status"`
	CreatedAt       string          `json:"createdAt,omitempty"`
	Timeout         float64         `json:"timeout,omitempty"` // milliseconds
	KeepAlive       bool            `json:"keepAlive,omitempty"`
	Origin          Origin          `json:"origin,omitempty"`
	ProjectID       string          `json:"projectId,omitempty"`
	BrowserSettings json.RawMessage `json:"browserSettings,omitempty"`
	UserMetadata    json.RawMessage `json:"userMetadata,omitempty"`
}

// Final tells whether the requester wants the session over.
func (s *Spec) Final() bool { return s.Status == StatusTerminated || s.Status == StatusCleaned }

// Length is how long the session may last.
func (s *Spec) Length() time.Duration {
	if s.Timeout <= 0 {
		return DefaultTimeout
	}
	return time.Duration(s.Timeout * float64(time.Millisecond))
}

// ParseSpec reads a document's text. It is an error if the text is not one JSON object, if
// a known field has another type, or if it names another session than id.
func ParseSpec(id string, text []byte) (Spec, error) {
	var spec Spec
	if len(bytes.TrimSpace(text)) == 0 || bytes.TrimSpace(text)[0] != '{' {
		return Spec{}, errors.New("not a JSON object")
	}
	if err := json.Unmarshal(text, &spec); err != nil {
		return Spec{}, fmt.Errorf("reading the document: %w", err)
	}
	if spec.SessionID != "" && spec.SessionID != id {
		return Spec{}, fmt.Errorf("sessionId %q does not match the key", spec.SessionID)
	}
	spec.SessionID = id
	return spec, nil
}

// SetField returns text, which must be a JSON object, with the top-level field set to value.
// Every other byte stays as it is: unknown fields, their order, large numbers, white space.
// A field that occurs more than once is set in its last place, the one that readers honour.
func SetField(text []byte, field string, value any) ([]byte, error) {
	encoded, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encoding field %s: %w", field, err)
	}
	return splice(text, field, encoded)
}

// SetIn sets a field of the object that is text's top-level field outer, as SetField does. An
// outer that is missing or no object becomes one.
func SetIn(text []byte, outer, field string, value any) ([]byte, error) {
	_, start, end, err := findField(text, outer)
	if err != nil {
		return nil, err
	}
	inner := []byte("{}")
	if start >= 0 && text[start] == '{' {
		inner = text[start:end]
	}
	if inner, err = SetField(inner, field, value); err != nil {
		return nil, err
	}
	return splice(text, outer, inner)
}

// StringField gives the string in text's top-level field; empty if there is none.
func StringField(text []byte, field string) string {
	_, start, end, err := findField(text, field)
	if err != nil || start < 0 {
		return ""
	}
	var value string
	if json.Unmarshal(text[start:end], &value) != nil {
		return ""
	}
	return value
}

// findField tells whether text, a JSON object, has any field, and where the last value of the
// named one stands; start is -1 if there is none, and end then that of the object's content.
func findField(text []byte, field string) (empty bool, start, end int, err error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	open, err := dec.Token()
	if err != nil || open != json.Delim('{') {
		return false, 0, 0, errors.New("not a JSON object")
	}
	start, end = -1, -1
	empty = true
	for dec.More() {
		empty = false
		key, err := dec.Token()
		if err != nil {
			return false, 0, 0, fmt.Errorf("reading the document: %w", err)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return false, 0, 0, fmt.Errorf("reading the document: %w", err)
		}
		if key == field {
			end = int(dec.InputOffset())
			start = end - len(raw)
		}
	}
	if _, err := dec.Token(); err != nil {
		return false, 0, 0, fmt.Errorf("reading the document: %w", err)
	}
	if start < 0 {
		end = int(dec.InputOffset()) - 1
	}
	return empty, start, end, nil
}

// splice puts a value, which is JSON, in a field's place.
func splice(text []byte, field string, encoded []byte) ([]byte, error) {
	empty, start, end, err := findField(text, field)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if start >= 0 {
		out.Write(text[:start])
		out.Write(encoded)
		out.Write(text[end:])
		return out.Bytes(), nil
	}
	closing := end
	name, _ := json.Marshal(field)
	out.Write(bytes.TrimRight(text[:closing], " \t\r\n"))
	if !empty {
		out.WriteByte(',')
	}
	out.Write(name)
	out.WriteByte(':')
	out.Write(encoded)
	out.Write(text[closing:])
	return out.Bytes(), nil
}
