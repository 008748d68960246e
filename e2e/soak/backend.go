//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"net/http"

	"github.com/gorilla/websocket"
)

// backend is the browsers' side. A message is a question: its first four bytes say how long the
// answer is to be, which repeats the last of them.
type backend struct{}

const questionSize = 200

func (*backend) serve(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{ReadBufferSize: 1 << 10, WriteBufferSize: 1 << 10, CheckOrigin: func(*http.Request) bool { return true }}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // it is answered
	}
	defer conn.Close()
	for {
		_, question, err := conn.ReadMessage()
		if err != nil || len(question) < 4 {
			return
		}
		if err := conn.WriteMessage(websocket.BinaryMessage, answerTo(question)); err != nil {
			return
		}
	}
}

func ask(size int, mark byte) []byte {
	question := bytes.Repeat([]byte{mark}, questionSize)
	binary.BigEndian.PutUint32(question, uint32(size))
	return question
}

func answerTo(question []byte) []byte {
	return bytes.Repeat(question[len(question)-1:], int(binary.BigEndian.Uint32(question)))
}
