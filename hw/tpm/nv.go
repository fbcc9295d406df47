package tpm

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// MaxNV is the largest NV area that is read or defined, in bytes: a
// certificate is 1 to 2 KiB.
const MaxNV = 8 << 10

// NVRead returns the whole content of an NV index that is readable with an
// empty password. An index that is not there or was never written is ErrNoNV.
func (d *Device) NVRead(ctx context.Context, index uint32) ([]byte, error) {
	b, err := ask(ctx, d, quoting, Timeout, func(t transport.TPM) ([]byte, error) {
		return d.nvRead(t, index)
	})
	if err != nil {
		return nil, fmt.Errorf("read NV 0x%08x: %w", index, err)
	}
	return b, nil
}

func (d *Device) nvRead(t transport.TPM, index uint32) ([]byte, error) {
	pub, name, err := nvPublic(t, index)
	if err != nil {
		return nil, err
	}
	if !pub.Attributes.Written {
		return nil, ErrNoNV
	}
	if pub.DataSize > MaxNV {
		return nil, fmt.Errorf("%w: NV area of %d bytes: at most %d", ErrMalformed, pub.DataSize, MaxNV)
	}
	chunk, err := d.nvBuffer(t)
	if err != nil {
		return nil, err
	}
	data := make([]byte, 0, pub.DataSize)
	for len(data) < int(pub.DataSize) {
		want := min(chunk, pub.DataSize-uint16(len(data)))
		rsp, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(index), Name: name, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: name},
			Size:       want,
			Offset:     uint16(len(data)),
		}.Execute(t)
		if err != nil {
			return nil, err
		}
		if len(rsp.Data.Buffer) != int(want) {
			return nil, fmt.Errorf("%w: %d bytes, asked for %d", ErrMalformed, len(rsp.Data.Buffer), want)
		}
		data = append(data, rsp.Data.Buffer...)
	}
	return data, nil
}

// NVDefine defines an NV index of size bytes in the platform hierarchy, so
// that neither an owner nor TPM2_Clear removes what the factory put there.
// Everybody may read it; only the platform may write. One of another size that
// is there already is removed first.
func (d *Device) NVDefine(ctx context.Context, index uint32, size int) error {
	if size < 1 || size > MaxNV {
		return fmt.Errorf("define NV 0x%08x: size of %d bytes: need 1 to %d", index, size, MaxNV)
	}
	_, err := ask(ctx, d, quoting, Timeout, func(t transport.TPM) (struct{}, error) {
		return struct{}{}, nvDefine(t, index, uint16(size))
	})
	if err != nil {
		return fmt.Errorf("define NV 0x%08x: %w", index, err)
	}
	return nil
}

func nvDefine(t transport.TPM, index uint32, size uint16) error {
	platform := tpm2.AuthHandle{Handle: tpm2.TPMRHPlatform, Auth: tpm2.PasswordAuth(nil)}
	pub, name, err := nvPublic(t, index)
	switch {
	case err == nil && pub.DataSize == size:
		return nil
	case err == nil:
		old := tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: name}
		if _, err := (tpm2.NVUndefineSpace{AuthHandle: platform, NVIndex: old}).Execute(t); err != nil {
			return err
		}
	case !errors.Is(err, ErrNoNV):
		return err
	}
	_, err = tpm2.NVDefineSpace{
		AuthHandle: platform,
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: tpm2.TPMHandle(index),
			NameAlg: tpm2.TPMAlgSHA256,
			Attributes: tpm2.TPMANV{
				PlatformCreate: true, PPWrite: true, PPRead: true,
				OwnerRead: true, AuthRead: true, NoDA: true,
				NT: tpm2.TPMNTOrdinary,
			},
			DataSize: size,
		}),
	}.Execute(t)
	return err
}

// NVWrite writes data to the whole of an index of NVDefine, whose size it
// must have. A chip wears out: what is there already is not written again.
func (d *Device) NVWrite(ctx context.Context, index uint32, data []byte) error {
	_, err := ask(ctx, d, quoting, Timeout, func(t transport.TPM) (struct{}, error) {
		old, err := d.nvRead(t, index)
		if err == nil && bytes.Equal(old, data) {
			return struct{}{}, nil
		}
		return struct{}{}, d.nvWrite(t, index, data)
	})
	if err != nil {
		return fmt.Errorf("write NV 0x%08x: %w", index, err)
	}
	return nil
}

func (d *Device) nvWrite(t transport.TPM, index uint32, data []byte) error {
	chunk, err := d.nvBuffer(t)
	if err != nil {
		return err
	}
	for at := 0; at < len(data); at += int(chunk) {
		// The first write sets the Written attribute and with it the name.
		pub, name, err := nvPublic(t, index)
		if err != nil {
			return err
		}
		if int(pub.DataSize) != len(data) {
			return fmt.Errorf("%d bytes into an area of %d: define it anew", len(data), pub.DataSize)
		}
		_, err = tpm2.NVWrite{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHPlatform, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: name},
			Data:       tpm2.TPM2BMaxNVBuffer{Buffer: data[at:min(at+int(chunk), len(data))]},
			Offset:     uint16(at),
		}.Execute(t)
		if err != nil {
			return err
		}
	}
	return nil
}

// nvPublic is TPM2_NV_ReadPublic (Part 3, section 31.6).
func nvPublic(t transport.TPM, index uint32) (*tpm2.TPMSNVPublic, tpm2.TPM2BName, error) {
	var none tpm2.TPM2BName
	rsp, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(t)
	if is(err, tpm2.TPMRCHandle) {
		return nil, none, fmt.Errorf("%w: %w", ErrNoNV, err)
	}
	if err != nil {
		return nil, none, err
	}
	pub, err := rsp.NVPublic.Contents()
	if err != nil {
		return nil, none, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return pub, rsp.NVName, nil
}

// Bounds for TPM_PT_NV_BUFFER_MAX: what every TPM can do, and what fits into a response.
const (
	minNVBuffer = 64
	maxNVBuffer = 2048
)

// nvBuffer returns how many bytes of NV one command carries.
func (d *Device) nvBuffer(t transport.TPM) (uint16, error) {
	if d.nvChunk != 0 {
		return d.nvChunk, nil
	}
	rsp, err := tpm2.GetCapability{
		Capability:    tpm2.TPMCapTPMProperties,
		Property:      uint32(tpm2.TPMPTNVBufferMax),
		PropertyCount: 1,
	}.Execute(t)
	if err != nil {
		return 0, err
	}
	props, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil {
		return 0, err
	}
	if len(props.TPMProperty) != 1 || props.TPMProperty[0].Property != tpm2.TPMPTNVBufferMax {
		return 0, fmt.Errorf("%w: no TPM_PT_NV_BUFFER_MAX", ErrMalformed)
	}
	d.nvChunk = uint16(max(minNVBuffer, min(props.TPMProperty[0].Value, maxNVBuffer)))
	return d.nvChunk, nil
}

// Certificate returns the certificate in an NV index, such as NVCertIAK.
// Bytes after the certificate are allowed: EK areas are padded.
func (d *Device) Certificate(ctx context.Context, index uint32) (*x509.Certificate, error) {
	b, err := d.NVRead(ctx, index)
	if err != nil {
		return nil, err
	}
	der, err := firstDER(b)
	if err != nil {
		return nil, fmt.Errorf("certificate in NV 0x%08x: %w", index, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate in NV 0x%08x: %w", index, err)
	}
	return cert, nil
}

// EKCertificate returns the maker's certificate of the EK, or ErrNoNV.
func (d *Device) EKCertificate(ctx context.Context) (*x509.Certificate, error) {
	return d.Certificate(ctx, NVCertEK)
}

// firstDER returns the first DER sequence of b.
func firstDER(b []byte) ([]byte, error) {
	if len(b) < 4 || b[0] != 0x30 || b[1] != 0x82 {
		return nil, errors.New("not a DER sequence of 256 to 65535 bytes")
	}
	size := 4 + int(b[2])<<8 + int(b[3])
	if size > len(b) {
		return nil, fmt.Errorf("DER sequence of %d bytes in %d", size, len(b))
	}
	return b[:size], nil
}
