//go:build linux

package metrics

// Text: how the many are written, those of services and backends. The library of
// Prometheus writes the few; it would hold all of a family's values at a time, and takes
// twice as long.

import (
	"bufio"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/common/expfmt"
)

// Prometheus is the format where nobody asks for another one.
var Prometheus = expfmt.NewFormat(expfmt.TypeTextPlain)

// FormatOf is the format of text that a request wants most: OpenMetrics 1.0.0 or 0.0.1,
// else Prometheus.
func FormatOf(h http.Header) expfmt.Format {
	return expfmt.NegotiateAccept(h, Prometheus, expfmt.FmtOpenMetrics_1_0_0, expfmt.FmtOpenMetrics_0_0_1)
}

// The kinds of families.
const (
	gauge   = "gauge"
	counter = "counter"
)

// writer writes families of metrics, one after the other. An error of a write is that
// of all later ones, and of Flush.
type writer struct {
	*bufio.Writer
	open   bool   // OpenMetrics
	name   string // of the family
	buffer []byte
}

func newWriter(w io.Writer, f expfmt.Format) *writer {
	return &writer{Writer: bufio.NewWriterSize(w, 64<<10), open: f.FormatType() == expfmt.TypeOpenMetrics}
}

// family begins one. The name of a counter ends in _total.
func (w *writer) family(name, kind, help string) {
	w.name = name
	if w.open && kind == counter {
		name = strings.TrimSuffix(name, "_total")
	}
	w.WriteString("# HELP " + name + " " + help + "\n# TYPE " + name + " " + kind + "\n")
}

// value is one of the family's, with labels.
func (w *writer) value(labels []byte, v float64) {
	b := append(append(append(w.buffer[:0], w.name...), '{'), labels...)
	b = append(b, '}', ' ')
	if n := int64(v); float64(n) == v {
		b = strconv.AppendInt(b, n, 10)
	} else {
		b = strconv.AppendFloat(b, v, 'g', -1, 64)
	}
	w.buffer = append(b, '\n')
	w.Write(w.buffer)
}

// appendLabels adds names and values in turn.
func appendLabels(b []byte, pairs ...string) []byte {
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, pairs[i]...), '=', '"')
		for k := range len(pairs[i+1]) {
			switch c := pairs[i+1][k]; c {
			case '\\', '"':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			default:
				b = append(b, c)
			}
		}
		b = append(b, '"')
	}
	return b
}
