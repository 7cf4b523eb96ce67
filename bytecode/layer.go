// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// objectName is the object's name in a layer.
const objectName = "blixt.o"

// maxObject bounds what is unpacked. An object has some 200 kB; a malicious layer could
// unpack to any size.
const maxObject = 16 << 20

// layer packs an object as the only file of a tar, without times, owners and the name of
// a machine. The tar is stored, not compressed: compressors change with versions, and
// the digest would change with them.
func layer(object []byte) (v1.Layer, v1.Hash, error) {
	var plain bytes.Buffer
	tw := tar.NewWriter(&plain)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: objectName, Mode: 0o644, Size: int64(len(object)), Format: tar.FormatUSTAR}
	if err := tw.WriteHeader(header); err != nil {
		return nil, v1.Hash{}, fmt.Errorf("pack object: %w", err)
	}
	if _, err := tw.Write(object); err != nil {
		return nil, v1.Hash{}, fmt.Errorf("pack object: %w", err)
	}
	if err := tw.Close(); err != nil {
		return nil, v1.Hash{}, fmt.Errorf("pack object: %w", err)
	}
	diffID, _, err := v1.SHA256(bytes.NewReader(plain.Bytes()))
	if err != nil {
		return nil, v1.Hash{}, fmt.Errorf("hash layer: %w", err)
	}
	var packed bytes.Buffer
	gz, err := gzip.NewWriterLevel(&packed, gzip.NoCompression)
	if err != nil {
		return nil, v1.Hash{}, fmt.Errorf("pack object: %w", err)
	}
	if _, err := gz.Write(plain.Bytes()); err != nil {
		return nil, v1.Hash{}, fmt.Errorf("pack object: %w", err)
	}
	if err := gz.Close(); err != nil {
		return nil, v1.Hash{}, fmt.Errorf("pack object: %w", err)
	}
	return static.NewLayer(packed.Bytes(), types.OCILayer), diffID, nil
}

// unpack returns the first file of a layer, which is what bpfman loads.
func unpack(l v1.Layer) ([]byte, error) {
	want, err := l.Digest()
	if err != nil {
		return nil, fmt.Errorf("read layer: %w", err)
	}
	stream, err := l.Compressed()
	if err != nil {
		return nil, fmt.Errorf("read layer: %w", err)
	}
	defer stream.Close()
	packed, err := io.ReadAll(io.LimitReader(stream, maxObject+1))
	if err != nil {
		return nil, fmt.Errorf("read layer: %w", err)
	}
	if len(packed) > maxObject {
		return nil, fmt.Errorf("layer has more than %d bytes: this is no bytecode image", maxObject)
	}
	// A registry's answer is checked on the way, a directory's is not.
	if got, _, err := v1.SHA256(bytes.NewReader(packed)); err != nil || got != want {
		return nil, fmt.Errorf("layer is %s, want %s: it is damaged, get the image again", got, want)
	}
	gz, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("unpack layer: %w: want tar and gzip", err)
	}
	tr := tar.NewReader(gz)
	header, err := tr.Next()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("layer holds no file: want the object as its first")
	}
	if err != nil {
		return nil, fmt.Errorf("unpack layer: %w", err)
	}
	if header.Typeflag != tar.TypeReg {
		return nil, fmt.Errorf("layer begins with %s, which is no file: bpfman loads its first entry", header.Name)
	}
	object, err := io.ReadAll(io.LimitReader(tr, maxObject+1))
	if err != nil {
		return nil, fmt.Errorf("unpack layer: %w", err)
	}
	if len(object) > maxObject {
		return nil, fmt.Errorf("object has more than %d bytes: this is no bytecode image", maxObject)
	}
	return object, nil
}
