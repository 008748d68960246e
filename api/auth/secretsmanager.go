package auth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"
)

// ManagerOptions say how to reach Secrets Manager. What they leave out comes from the
// environment, the shared configuration files and the task's or instance's role.
type ManagerOptions struct {
	Region   string
	Endpoint string // another than AWS's own: http://127.0.0.1:…
}

// Manager reads secrets in AWS Secrets Manager.
type Manager struct{ client *secretsmanager.Client }

const (
	managerAttemptTimeout = 2 * time.Second
	managerAttempts       = 2

	loopbackRegion = "us-east-1" // signed with where nobody verifies it
)

// NewManager makes the SDK's client. With an endpoint on loopback it needs neither region nor
// credentials.
func NewManager(ctx context.Context, o ManagerOptions) (*Manager, error) {
	local, err := onLoopback(o.Endpoint)
	if err != nil {
		return nil, err
	}
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(managerAttemptTimeout)),
		config.WithRetryMaxAttempts(managerAttempts),
	}
	if o.Region != "" {
		options = append(options, config.WithRegion(o.Region))
	}
	if local {
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
	return &Manager{secretsmanager.NewFromConfig(cfg, func(options *secretsmanager.Options) {
		if o.Endpoint != "" {
			options.BaseEndpoint = aws.String(o.Endpoint)
		}
	})}, nil
}

// onLoopback tells whether the endpoint is on this machine by its very name.
func onLoopback(endpoint string) (bool, error) {
	if endpoint == "" {
		return false, nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return false, errors.New("the endpoint of Secrets Manager is not http(s)://host:port")
	}
	host := u.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback(), nil
}

// Labels that Secrets Manager puts on a secret's versions.
const (
	stageCurrent  = "AWSCURRENT"
	stagePrevious = "AWSPREVIOUS"
)

// Source reads the secret of that ARN or name: its current version, and the previous one if
// there is one.
func (m *Manager) Source(id string) Source {
	return func(ctx context.Context) (Versions, error) {
		current, since, err := m.get(ctx, id, stageCurrent)
		if err != nil {
			return Versions{}, fmt.Errorf("reading secret %s: %w", id, err)
		}
		previous, _, err := m.get(ctx, id, stagePrevious)
		// A secret that was never rotated has no previous version.
		if err != nil && !errors.Is(err, errAbsent) {
			return Versions{}, fmt.Errorf("reading the previous version of secret %s: %w", id, err)
		}
		return Versions{Current: current, Previous: previous, Since: since}, nil
	}
}

func (m *Manager) get(ctx context.Context, id, stage string) (Secret, time.Time, error) {
	out, err := m.client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{
		SecretId: aws.String(id), VersionStage: aws.String(stage),
	})
	if err != nil {
		return "", time.Time{}, plainError(err)
	}
	text := aws.ToString(out.SecretString)
	if text == "" {
		return "", time.Time{}, errors.New("it holds no text: store it as a SecretString")
	}
	return Secret(text), aws.ToTime(out.CreatedDate), nil
}

// errAbsent says that a secret, or the version asked for, is not there.
var errAbsent = errors.New("no such secret or version in Secrets Manager")

// plainError cuts an SDK's error down to what an operator needs: it also names the request,
// which makes each occurrence another text.
func plainError(err error) error {
	var refused smithy.APIError
	var unsent *net.OpError
	switch {
	case errors.As(err, new(*types.ResourceNotFoundException)):
		return errAbsent
	case errors.As(err, &refused):
		return fmt.Errorf("%s: %s", refused.ErrorCode(), refused.ErrorMessage())
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer from Secrets Manager: %w", context.DeadlineExceeded)
	case errors.As(err, &unsent):
		return fmt.Errorf("reaching Secrets Manager: %w", unsent.Err)
	default:
		return err
	}
}
