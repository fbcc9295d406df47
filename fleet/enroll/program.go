package enroll

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"waxseal/measure/evidence"
	"waxseal/measure/wire"
)

// ProgramCA is an owner's certificate authority behind a program: in an HSM,
// in another network, behind a queue of people. The program gets one request
// as JSON on its standard input and writes one PEM certificate to its standard
// output (docs/formats-enrollz.md). It implements Issuer.
//
// The program decides what it signs. What it answers is checked by Enroll like
// any issuer's answer.
type ProgramCA struct {
	Path    string
	Timeout time.Duration // for one certificate; 0: 30 s
}

var _ Issuer = ProgramCA{}

// Bounds of what a program may write, in bytes.
const (
	maxIssued = 64 << 10
	maxWords  = 4 << 10 // on standard error, of which the end is kept
)

// programRequest is the format waxseal-issue-1.
type programRequest struct {
	Format    string     `json:"format"`
	Kind      Kind       `json:"kind"`
	Serial    string     `json:"serial"`
	Subject   programSub `json:"subject"`
	Host      string     `json:"host,omitempty"`
	PublicKey string     `json:"public_key"`
	Uses      []string   `json:"uses"`
	URI       string     `json:"uri"`
	Days      int        `json:"days"`
}

type programSub struct {
	Country            []string `json:"country,omitempty"`
	Organization       []string `json:"organization,omitempty"`
	OrganizationalUnit []string `json:"organizational_unit,omitempty"`
	CommonName         string   `json:"common_name"`
	SerialNumber       string   `json:"serial_number"`
}

const programFormat = "waxseal-issue-1"

// uses are the extended key usages of the certificates, as object identifiers.
var uses = map[Kind][]string{
	OIAK:    {oidAIKCertificate.String()},
	OIDevID: {"1.3.6.1.5.5.7.3.1"}, // id-kp-serverAuth (RFC 5280, section 4.2.1.12)
}

// Issue implements Issuer.
func (ca ProgramCA) Issue(ctx context.Context, r Request) (*x509.Certificate, error) {
	request, err := r.encode()
	if err != nil {
		return nil, err
	}
	timeout := ca.Timeout
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer, words := &bounded{limit: maxIssued}, &tail{limit: maxWords}
	cmd := exec.CommandContext(ctx, ca.Path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(request), answer, words
	cmd.WaitDelay = time.Second // a child of the program may hold its output open
	err = cmd.Run()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("CA program %s: no answer within %v: %w", ca.Path, timeout, ctx.Err())
	}
	if err != nil {
		return nil, fmt.Errorf("CA program %s: %w: %s", ca.Path, err, evidence.Escape(lastLine(string(words.kept))))
	}
	return parseIssued(ca.Path, answer.kept.String())
}

func (r Request) encode() ([]byte, error) {
	if _, err := r.template(time.Time{}, lifeDevice); err != nil { // refuses what no CA should be asked for
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(r.Key)
	if err != nil {
		return nil, fmt.Errorf("public key of %s: %w", r.Serial, err)
	}
	return json.Marshal(programRequest{
		Format: programFormat, Kind: r.Kind, Serial: r.Serial, Host: r.Host,
		Subject: programSub{
			r.Subject.Country, r.Subject.Organization, r.Subject.OrganizationalUnit,
			r.Subject.CommonName, r.Subject.SerialNumber,
		},
		PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		Uses:      uses[r.Kind], URI: serialURI(r.Serial).String(), Days: int(lifeDevice / (24 * time.Hour)),
	})
}

func parseIssued(path, answer string) (*x509.Certificate, error) {
	chain, err := wire.ParseChain(answer)
	if err != nil {
		return nil, fmt.Errorf("CA program %s: %w: %w", path, ErrIssued, err)
	}
	certs, err := chain.Certificates()
	if err != nil {
		return nil, fmt.Errorf("CA program %s: %w: %w", path, ErrIssued, err)
	}
	if len(certs) != 1 {
		return nil, fmt.Errorf("CA program %s: %w: %d certificates instead of one", path, ErrIssued, len(certs))
	}
	return certs[0], nil
}

// bounded keeps what is written until there is too much of it.
type bounded struct {
	kept  bytes.Buffer // not embedded: its ReadFrom knows no limit
	limit int
}

var errTooMuch = errors.New("it writes too much")

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.kept.Len()+len(p) > b.limit {
		return 0, errTooMuch
	}
	return b.kept.Write(p)
}

// tail keeps the end of what is written.
type tail struct {
	kept  []byte
	limit int
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	t.kept = t.kept[max(0, len(t.kept)-t.limit):]
	return len(p), nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
