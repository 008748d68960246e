package ecs

import (
	"context"
	"fmt"
	"io"

	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// plainStream lets the transport read a request's body by Read alone. The SDK closes the body
// as soon as the answer's header is there, and its body's WriteTo then gives io.EOF as an
// error. If the transport has not yet asked whether the body has ended, it takes the request
// for failed and cuts the connection under the answer ("use of closed network connection").
// A server that answers within microseconds, as one on loopback does, brings that about in
// one call of a hundred.
type plainStream struct{}

// ID names the middleware.
func (plainStream) ID() string { return "PlainStream" }

// HandleSerialize hides the body's other methods.
func (plainStream) HandleSerialize(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (middleware.SerializeOutput, middleware.Metadata, error) {
	request, ok := in.Request.(*smithyhttp.Request)
	if !ok {
		return middleware.SerializeOutput{}, middleware.Metadata{}, fmt.Errorf("request is a %T, want one for HTTP", in.Request)
	}
	if stream, ok := request.GetStream().(io.ReadSeeker); ok {
		plain, err := request.SetStream(struct{ io.ReadSeeker }{stream})
		if err != nil {
			return middleware.SerializeOutput{}, middleware.Metadata{}, fmt.Errorf("setting the request's body: %w", err)
		}
		in.Request = plain
	}
	return next.HandleSerialize(ctx, in)
}

// withPlainStream adds the above after what makes the body.
func withPlainStream(stack *middleware.Stack) error {
	return stack.Serialize.Add(plainStream{}, middleware.After)
}
