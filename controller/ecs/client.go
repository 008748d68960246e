package ecs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
)

// ClientOptions say how to reach ECS. What they leave out comes from the environment, the
// shared configuration files and the task's or instance's role, as with every AWS program.
type ClientOptions struct {
	Region   string
	Endpoint string // another than AWS's own: http://127.0.0.1:…

	AttemptTimeout time.Duration // of one of a call's attempts; default 4 s
	MaxAttempts    int           // of a call; default 3
}

const (
	defaultAttemptTimeout = 4 * time.Second
	defaultMaxAttempts    = 3
	maxBackoff            = 2 * time.Second

	loopbackRegion = "us-east-1" // signed with where nobody verifies it
)

// NewClient makes the SDK's client. With an endpoint on loopback it needs neither region nor
// credentials.
func NewClient(ctx context.Context, o ClientOptions) (*ecs.Client, error) {
	if o.AttemptTimeout == 0 {
		o.AttemptTimeout = defaultAttemptTimeout
	}
	if o.MaxAttempts == 0 {
		o.MaxAttempts = defaultMaxAttempts
	}
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(o.AttemptTimeout)),
		// The controller comes back by itself, so a call need not insist. The adaptive mode
		// would hold back launches because reads were throttled.
		config.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(s *retry.StandardOptions) {
				s.MaxAttempts = o.MaxAttempts
				s.MaxBackoff = maxBackoff
			})
		}),
	}
	if o.Region != "" {
		options = append(options, config.WithRegion(o.Region))
	}
	local, err := onLoopback(o.Endpoint)
	if err != nil {
		return nil, err
	}
	if local { // nobody there asks for an instance's role, which takes seconds to find missing
		options = append(options, config.WithEC2IMDSClientEnableState(imds.ClientDisabled))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	if local {
		if cfg.Region == "" {
			cfg.Region = loopbackRegion
		}
		if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
			cfg.Credentials = credentials.NewStaticCredentialsProvider("local", "local", "")
		}
	}
	if cfg.Region == "" {
		return nil, errors.New("no AWS region: set AWS_REGION")
	}
	return ecs.NewFromConfig(cfg, func(options *ecs.Options) {
		options.APIOptions = append(options.APIOptions, withPlainStream)
		if o.Endpoint != "" {
			options.BaseEndpoint = aws.String(o.Endpoint)
		}
	}), nil
}

// onLoopback tells whether the endpoint is on this machine by its very name.
func onLoopback(endpoint string) (bool, error) {
	if endpoint == "" {
		return false, nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return false, fmt.Errorf("ECS endpoint %q: want http(s)://host:port", endpoint)
	}
	host := u.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" {
		return true, nil
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback(), nil
}
