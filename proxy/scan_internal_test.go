package proxy

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestOpenEnvelopeFindsFieldsWhereverTheyStand(t *testing.T) {
	for name, c := range map[string]struct{ text, kind, session, data, id string }{
		"the usual order": {`{"type":"CDP_RESPONSE","sessionId":"s","data":{"id":1,"result":{"a":"}"}}}`, "CDP_RESPONSE", "s", `{"id":1,"result":{"a":"}"}}`, ""},
		"the data first":  {`{"data":"A\\","sessionId":"s","type":"F","id": 7 }`, "F", "s", `"A\\"`, "7"},
		"white space":     {" {\n\"type\" :\t\"T\" , \"data\" : [ 1 , {} ] } ", "T", "", "[ 1 , {} ]", ""},
		"escapes":         {`{"ty\u0070e":"T\u005f","sessionId":"\"s"}`, "T_", `"s`, "", ""},
		"the last counts": {`{"type":"A","type":"B","data":1,"data":{"type":"C"}}`, "B", "", `{"type":"C"}`, ""},
		"no strings":      {`{"type":1,"sessionId":null,"id":"x"}`, "", "", "", `"x"`},
		"no fields":       {`{}`, "", "", "", ""},
		"tricky strings":  {`{"data":"\\\"]}","type":"T"}`, "T", "", `"\\\"]}"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := openEnvelope([]byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			if string(e.kind) != c.kind || string(e.session) != c.session || string(e.data) != c.data || string(e.id) != c.id {
				t.Errorf("got %q %q %q %q", e.kind, e.session, e.data, e.id)
			}
		})
	}
	for _, text := range []string{
		"", "null", "[]", `"{"`, "{", `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{"a":}`, `{a:1}`, `{"a":1}x`,
		`{"a":[}`, `{"a":{]}`, `{"a":"}`, `{"a":1 2}`, `{"a":[` + strings.Repeat("[", maxNesting+1),
	} {
		if _, err := openEnvelope([]byte(text)); err == nil {
			t.Errorf("%.40s passes", text)
		}
	}
}

func TestIDsAreTheSameHoweverTheyAreWritten(t *testing.T) {
	for _, same := range [][]string{
		{"1", "1.0", "1e0", "10e-1"}, {"-1"}, {"0", "-0", "0.0"}, {"9007199254740993", "9007199254740992"},
		{"1e21", "1000000000000000000000"}, {`"a"`, `"\u0061"`}, {`"1"`}, {"null"}, {"true"}, {"1.5"},
	} {
		for _, id := range same {
			if idOf([]byte(id)) != idOf([]byte(same[0])) {
				t.Errorf("%s differs from %s", id, same[0])
			}
		}
	}
	seen := map[commandID]string{}
	for _, id := range []string{"1", "-1", "0", `"1"`, `"n"`, "1.5", "null", `"null"`, `""`, "123456789012345", "1234567890123456", `"1.5"`} {
		if other, ok := seen[idOf([]byte(id))]; ok {
			t.Errorf("%s is taken for %s", id, other)
		}
		seen[idOf([]byte(id))] = id
	}
	if idOf(nil) != (commandID{}) || idOf([]byte(`""`)) == (commandID{}) {
		t.Error("no id and an empty one are the same")
	}
}

func FuzzOpenEnvelope(f *testing.F) {
	for _, seed := range []string{
		`{"type":"CDP_RESPONSE","sessionId":"ses_1","data":{"id":1,"result":{}}}`,
		`{"id":9007199254740993,"method":"A","params":{"x":[1,"\\\"",{}]}}`,
		" {\t\"data\":\"\\u007d\",\"type\":null , \"id\" : -1.5e3 } ", `{"a":{"b":[]},"":0}`, "null", "{", `{"a":1}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := openEnvelope(text)
		_ = idOf(e.id)
		_ = answerID(text)
		if !json.Valid(text) || !utf8.Valid(text) {
			return // what is wrong inside numbers and strings is not looked for
		}
		var want map[string]json.RawMessage
		object := json.Unmarshal(text, &want) == nil && want != nil
		if object != (err == nil) {
			t.Fatalf("an object: %t; error: %v", object, err)
		}
		if !object {
			return
		}
		if !bytes.Equal(e.data, want["data"]) || !bytes.Equal(e.id, want["id"]) {
			t.Fatalf("got data %q and id %q, want %q and %q", e.data, e.id, want["data"], want["id"])
		}
		var kind string
		if json.Unmarshal(want["type"], &kind) == nil && want["type"][0] == '"' && kind != string(e.kind) {
			t.Fatalf("got type %q, want %q", e.kind, kind)
		}
	})
}
