package wire

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"waxseal/measure/finding"
	"waxseal/measure/wire/waxsealpb"
)

// MethodFollow is the full name of the call that tells findings.
const MethodFollow = "/waxseal.v1.Findings/Follow"

// Told is a finding as a device tells it. It is a claim until a quote covers its
// record.
type Told struct {
	Name    string // of the record
	Content []byte // of the record
	Index   int64  // of the record among the agent's, from 0; -1: it is not recorded
	Problem string // why it is not recorded; empty: it is
}

// FindingServer tells findings.
type FindingServer interface {
	// Follow calls tell for what is open, then for every finding, until ctx is
	// done or tell fails. An error wraps ErrBusy or ErrNotFound.
	Follow(ctx context.Context, tell func(Told) error) error
}

// RegisterFindings makes r serve waxseal.v1.Findings by s.
func RegisterFindings(r grpc.ServiceRegistrar, s FindingServer) {
	waxsealpb.RegisterFindingsServer(r, findings{server: s})
}

type findings struct {
	waxsealpb.UnimplementedFindingsServer
	server FindingServer
}

func (f findings) Follow(_ *waxsealpb.FollowRequest, stream grpc.ServerStreamingServer[waxsealpb.FollowResponse]) error {
	return toStatus(f.server.Follow(stream.Context(), func(t Told) error {
		return stream.Send(&waxsealpb.FollowResponse{Name: t.Name, Content: t.Content, Index: t.Index, Problem: clean(t.Problem, MaxReason)})
	}))
}

// FindingClient follows a device's findings.
type FindingClient struct{ client waxsealpb.FindingsClient }

// Findings returns the client of waxseal.v1.Findings.
func (c Conn) Findings() FindingClient {
	return FindingClient{waxsealpb.NewFindingsClient(c.ClientConn)}
}

// Follow calls each for what is open at the device, then for every finding,
// until ctx is done, the device ends it (io.EOF) or each fails.
func (c FindingClient) Follow(ctx context.Context, each func(Told) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.client.Follow(ctx, &waxsealpb.FollowRequest{}, grpc.MaxCallRecvMsgSize(finding.MaxSize+4096))
	if err != nil {
		return fromStatus("Findings.Follow", err)
	}
	for {
		resp, err := stream.Recv()
		if err == io.EOF {
			return io.EOF
		}
		if err != nil {
			return fromStatus("Findings.Follow", err)
		}
		t := Told{Name: resp.GetName(), Content: resp.GetContent(), Index: resp.GetIndex(), Problem: clean(resp.GetProblem(), MaxReason)}
		if _, _, ok := finding.Split(t.Name); !ok || len(t.Content) > finding.MaxSize {
			return fmt.Errorf("Findings.Follow: %w: %q is no record of a finding", ErrAnswer, t.Name)
		}
		if err := each(t); err != nil {
			return err
		}
	}
}
