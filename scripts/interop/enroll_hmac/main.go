// Command enroll_hmac enrolls one device as the reference library of
// openconfig/attestz does it without certificates of the maker: it calls
// biz.EnrollSwitchWithHMACChallenge with the library's own TPM code, a real
// connection, a CA in files and a database of one EK. What it judges, the
// library judges.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"

	cpb "github.com/openconfig/attestz/proto/common_definitions"
	epb "github.com/openconfig/attestz/proto/tpm_enrollz"
	"github.com/openconfig/attestz/service/biz"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

func main() {
	addr := flag.String("addr", "", "IP:PORT of the device")
	cert := flag.String("owner_ca_cert", "", "PEM file")
	key := flag.String("owner_ca_key", "", "PEM file, PKCS #8")
	ek := flag.String("ek", "", "PEM file with the public key of the EK")
	serial := flag.String("serial", "", "serial number that the EK belongs to")
	flag.Parse()
	if err := enroll(*addr, *cert, *key, *ek, *serial); err != nil {
		fmt.Fprintln(os.Stderr, "enroll_hmac:", err)
		os.Exit(1)
	}
}

func enroll(addr, certFile, keyFile, ekFile, serial string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	owner, err := readOwner(certFile, keyFile)
	if err != nil {
		return err
	}
	ek, err := readEK(ekFile)
	if err != nil {
		return err
	}
	client, err := owner.client()
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{client}, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, // nobody has certified the device yet
	})))
	if err != nil {
		return err
	}
	defer conn.Close()
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	owner.host = net.ParseIP(host)
	return biz.EnrollSwitchWithHMACChallenge(ctx, &biz.EnrollSwitchWithHMACChallengeReq{
		ControlCardSelections: []*cpb.ControlCardSelection{{
			ControlCardId: &cpb.ControlCardSelection_Role{Role: cpb.ControlCardRole_CONTROL_CARD_ROLE_ACTIVE},
		}},
		Deps:         deps{device{epb.NewTpmEnrollzServiceClient(conn)}, owner, rot{serial, ek}, nil, &biz.DefaultTPM20Utils{}},
		SSLProfileID: "tls",
	})
}

// deps is what the library wants. It asks for no certificates of a maker in
// this flow.
type deps struct {
	device
	owner
	rot
	biz.TpmCertVerifier
	*biz.DefaultTPM20Utils
}

// device is the connection to the device.
type device struct{ client epb.TpmEnrollzServiceClient }

func (d device) GetIakCert(ctx context.Context, r *epb.GetIakCertRequest) (*epb.GetIakCertResponse, error) {
	return d.client.GetIakCert(ctx, r)
}

func (d device) RotateOIakCert(ctx context.Context, r *epb.RotateOIakCertRequest) (*epb.RotateOIakCertResponse, error) {
	return d.client.RotateOIakCert(ctx, r)
}

func (d device) RotateAIKCert(ctx context.Context, opts ...grpc.CallOption) (epb.TpmEnrollzService_RotateAIKCertClient, error) {
	return d.client.RotateAIKCert(ctx, opts...)
}

func (d device) GetControlCardVendorID(ctx context.Context, r *epb.GetControlCardVendorIDRequest) (*epb.GetControlCardVendorIDResponse, error) {
	return d.client.GetControlCardVendorID(ctx, r)
}

func (d device) Challenge(ctx context.Context, r *epb.ChallengeRequest) (*epb.ChallengeResponse, error) {
	return d.client.Challenge(ctx, r)
}

func (d device) GetIdevidCsr(ctx context.Context, r *epb.GetIdevidCsrRequest) (*epb.GetIdevidCsrResponse, error) {
	return d.client.GetIdevidCsr(ctx, r)
}

// rot is a root-of-trust database that knows one EK.
type rot struct {
	serial string
	ek     *rsa.PublicKey
}

// FetchEK implements biz.ROTDBClient.
func (r rot) FetchEK(_ context.Context, req *biz.FetchEKReq) (*biz.FetchEKResp, error) {
	if req.Serial != r.serial {
		return nil, fmt.Errorf("no EK of %q is known", req.Serial)
	}
	return &biz.FetchEKResp{EkPublicKey: r.ek, KeyType: epb.Key_KEY_EK}, nil
}

// owner is the switch owner's CA.
type owner struct {
	cert *x509.Certificate
	key  crypto.Signer
	host net.IP
}

// IssueOwnerIakCert implements biz.SwitchOwnerCaClient.
func (o owner) IssueOwnerIakCert(_ context.Context, r *biz.IssueOwnerIakCertReq) (*biz.IssueOwnerIakCertResp, error) {
	text, err := o.issue(r.CardID.GetControlCardSerial(), r.IakPubPem)
	return &biz.IssueOwnerIakCertResp{OwnerIakCertPem: text}, err
}

// IssueOwnerIDevIDCert implements biz.SwitchOwnerCaClient.
func (o owner) IssueOwnerIDevIDCert(_ context.Context, r *biz.IssueOwnerIDevIDCertReq) (*biz.IssueOwnerIDevIDCertResp, error) {
	text, err := o.issue(r.CardID.GetControlCardSerial(), r.IDevIDPubPem)
	return &biz.IssueOwnerIDevIDCertResp{OwnerIDevIDCertPem: text}, err
}

// IssueAikCert implements biz.SwitchOwnerCaClient; it is for TPM 1.2.
func (owner) IssueAikCert(context.Context, *biz.IssueAikCertReq) (*biz.IssueAikCertResp, error) {
	return nil, errors.New("no TPM 1.2 here")
}

func (o owner) issue(serial, keyPEM string) (string, error) {
	block, _ := pem.Decode([]byte(keyPEM))
	if block == nil {
		return "", errors.New("public key is no PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return "", err
	}
	der, err := o.sign(serial, key, x509.ExtKeyUsageServerAuth, o.host)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), err
}

func (o owner) sign(serial string, key crypto.PublicKey, use x509.ExtKeyUsage, hosts ...net.IP) ([]byte, error) {
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: number, Subject: pkix.Name{CommonName: serial, SerialNumber: serial},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use}, IPAddresses: hosts,
	}
	return x509.CreateCertificate(rand.Reader, t, o.cert, key, o.key)
}

// client makes a client certificate of the owner.
func (o owner) client() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := o.sign("enrollz", key.Public(), x509.ExtKeyUsageClientAuth)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

func readPEM(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is no PEM", path)
	}
	return block.Bytes, nil
}

func readOwner(certFile, keyFile string) (owner, error) {
	der, err := readPEM(certFile)
	if err != nil {
		return owner{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return owner{}, err
	}
	if der, err = readPEM(keyFile); err != nil {
		return owner{}, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return owner{}, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return owner{}, fmt.Errorf("%s: a %T cannot sign", keyFile, key)
	}
	return owner{cert: cert, key: signer}, nil
}

func readEK(path string) (*rsa.PublicKey, error) {
	der, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	ek, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%s: a %T is no EK", path, key)
	}
	return ek, nil
}
