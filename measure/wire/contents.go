package wire

import (
	"context"
	"crypto/sha256"
	"fmt"

	"google.golang.org/grpc"

	"waxseal/measure/wire/waxsealpb"
)

// ContentServer serves what lies under the digests of a log.
type ContentServer interface {
	// Content returns the content with the given SHA-256, or an error that
	// wraps ErrNotFound.
	Content(ctx context.Context, sum [sha256.Size]byte) ([]byte, error)
	Status(context.Context) (Status, error)
}

// RegisterContents makes r serve waxseal.v1.Contents by s.
func RegisterContents(r grpc.ServiceRegistrar, s ContentServer) {
	waxsealpb.RegisterContentsServer(r, contents{server: s})
}

type contents struct {
	waxsealpb.UnimplementedContentsServer
	server ContentServer
}

func (c contents) Get(ctx context.Context, p *waxsealpb.GetRequest) (*waxsealpb.GetResponse, error) {
	if n := len(p.GetSha256()); n != sha256.Size {
		return nil, toStatus(fmt.Errorf("%w: sha256 of %d bytes: need %d", ErrInvalid, n, sha256.Size))
	}
	content, err := c.server.Content(ctx, [sha256.Size]byte(p.GetSha256()))
	if err != nil {
		return nil, toStatus(err)
	}
	return &waxsealpb.GetResponse{Content: content}, nil
}

func (c contents) Status(ctx context.Context, _ *waxsealpb.StatusRequest) (*waxsealpb.StatusResponse, error) {
	s, err := c.server.Status(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	return &waxsealpb.StatusResponse{Attested: s.Attested, Enrolled: s.Enrolled, Owned: s.Owned, Reason: clean(s.Reason, MaxReason)}, nil
}

// ContentClient asks for what lies under the digests of a log.
type ContentClient struct{ client waxsealpb.ContentsClient }

// NewContents returns a client over conn; see Dial.
func NewContents(conn grpc.ClientConnInterface) ContentClient {
	return ContentClient{waxsealpb.NewContentsClient(conn)}
}

// Content returns the content with the given SHA-256. It has that digest:
// anything else from the device is ErrAnswer.
func (c ContentClient) Content(ctx context.Context, sum [sha256.Size]byte) ([]byte, error) {
	resp, err := c.client.Get(ctx, &waxsealpb.GetRequest{Sha256: sum[:]}, grpc.MaxCallRecvMsgSize(MaxContent+1024))
	if err != nil {
		return nil, fromStatus("Contents.Get", err)
	}
	if sha256.Sum256(resp.GetContent()) != sum {
		return nil, fmt.Errorf("Contents.Get: %w: content has another digest than %x", ErrAnswer, sum)
	}
	return resp.GetContent(), nil
}

// Status asks whether the device can attest.
func (c ContentClient) Status(ctx context.Context) (Status, error) {
	resp, err := c.client.Status(ctx, &waxsealpb.StatusRequest{}, grpc.MaxCallRecvMsgSize(MaxRequest))
	if err != nil {
		return Status{}, fromStatus("Contents.Status", err)
	}
	return Status{Attested: resp.GetAttested(), Enrolled: resp.GetEnrolled(), Owned: resp.GetOwned(), Reason: clean(resp.GetReason(), MaxReason)}, nil
}
