//go:build linux

package metrics

// Text: how metrics are written, for Prometheus (exposition formats, text 0.0.4) and as
// OpenMetrics 1.0.0.

import (
	"io"
	"strconv"
	"strings"
)

// Format is how metrics are written.
type Format uint8

// The formats.
const (
	Prometheus Format = iota
	OpenMetrics
)

// FormatOf is what an Accept header (RFC 9110, 12.5.1) wants most; Prometheus where it
// does not say.
func FormatOf(accept string) Format {
	open, plain := 0.0, 0.0
	for one := range strings.SplitSeq(accept, ",") {
		kind, parameters, _ := strings.Cut(one, ";")
		q := 1.0
		for p := range strings.SplitSeq(parameters, ";") {
			if text, ok := strings.CutPrefix(strings.TrimSpace(p), "q="); ok {
				q, _ = strconv.ParseFloat(text, 64)
			}
		}
		switch strings.TrimSpace(kind) {
		case "application/openmetrics-text":
			open = max(open, q)
		case "text/plain":
			plain = max(plain, q)
		}
	}
	if open > 0 && open >= plain {
		return OpenMetrics
	}
	return Prometheus
}

// ContentType is the format's.
func (f Format) ContentType() string {
	if f == OpenMetrics {
		return "application/openmetrics-text; version=1.0.0; charset=utf-8"
	}
	return "text/plain; version=0.0.4; charset=utf-8"
}

// mostBuffered is how much is written at a time.
const mostBuffered = 64 << 10

// writer writes families of metrics, one after the other.
type writer struct {
	w      io.Writer
	format Format
	buffer []byte
	err    error
	name   string // of the family's samples
	labels int
}

// The kinds of families.
const (
	gauge     = "gauge"
	counter   = "counter"
	info      = "info"
	histogram = "histogram"
)

// family begins one. Samples of counters end in _total, those of infos in _info.
func (w *writer) family(name, kind, help string) {
	w.flush(mostBuffered)
	w.name = name
	switch kind {
	case counter:
		w.name += "_total"
	case info:
		w.name += "_info"
	}
	if w.format == Prometheus {
		if name = w.name; kind == info {
			kind = gauge
		}
	}
	w.buffer = append(w.buffer, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+kind+"\n"...)
}

// sample begins a sample, of a suffix of the family's name; value ends it.
func (w *writer) sample(suffix string) {
	w.flush(mostBuffered)
	w.buffer = append(append(w.buffer, w.name...), suffix...)
	w.labels = 0
}

// label adds one to a sample.
func (w *writer) label(name, value string) {
	if w.labels++; w.labels == 1 {
		w.buffer = append(w.buffer, '{')
	} else {
		w.buffer = append(w.buffer, ',')
	}
	w.buffer = appendLabel(w.buffer, name, value)
}

// labelled is a whole sample, with labels that were written before.
func (w *writer) labelled(labels []byte, v float64) {
	w.sample("")
	w.prelabel(labels)
	w.value(v)
}

// prelabel adds the first labels of a sample, which were written before.
func (w *writer) prelabel(labels []byte) {
	w.buffer = append(append(w.buffer, '{'), labels...)
	w.labels = 1
}

func appendLabel(b []byte, name, value string) []byte {
	b = append(append(b, name...), '=', '"')
	for i := range len(value) {
		switch c := value[i]; c {
		case '\\', '"':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

func (w *writer) value(v float64) {
	if w.labels > 0 {
		w.buffer = append(w.buffer, '}')
	}
	w.buffer = append(w.buffer, ' ')
	if n := int64(v); float64(n) == v {
		w.buffer = strconv.AppendInt(w.buffer, n, 10)
	} else {
		w.buffer = strconv.AppendFloat(w.buffer, v, 'g', -1, 64)
	}
	w.buffer = append(w.buffer, '\n')
}

// single is a family of one sample without labels.
func (w *writer) single(name, kind, help string, v float64) {
	w.family(name, kind, help)
	w.sample("")
	w.value(v)
}

// histogram writes the samples of one, with a label.
func (w *writer) histogram(h *Histogram, label, of string) {
	count := uint64(0)
	for i := range h.buckets {
		count += h.buckets[i].Load()
		le := "+Inf"
		if i < len(bounds) {
			le = strconv.FormatFloat(bounds[i], 'g', -1, 64)
			if w.format == OpenMetrics && !strings.Contains(le, ".") {
				le += ".0" // as its canonical numbers are
			}
		}
		w.sample("_bucket")
		w.label(label, of)
		w.label("le", le)
		w.value(float64(count))
	}
	w.sample("_sum")
	w.label(label, of)
	w.value(float64(h.sum.Load()) / 1e9)
	w.sample("_count")
	w.label(label, of)
	w.value(float64(count))
}

// flush writes what is there, where it is as much as most.
func (w *writer) flush(most int) {
	if len(w.buffer) < most || len(w.buffer) == 0 {
		return
	}
	if w.err == nil {
		_, w.err = w.w.Write(w.buffer)
	}
	w.buffer = w.buffer[:0]
}

// end ends it all.
func (w *writer) end() error {
	if w.format == OpenMetrics {
		w.buffer = append(w.buffer, "# EOF\n"...)
	}
	w.flush(0)
	return w.err
}
