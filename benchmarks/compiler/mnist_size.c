/* A 784-128-10 network learns in batches: forward, cross entropy, backward, SGD with momentum; in two ways.

   `naive` is the plain loops, sample by sample, with the gradients added up in an array of their own. `blocked` is what
   a patient hand makes of it: 8 samples and 4 hidden neurons at a time, so that each weight that is loaded is used 8
   times and each input 4 times (with 1 neuron in place of 4 it takes 1.7 times as long in double), and the update in the
   loop that makes the gradient, which is then never stored. REAL is double, or float by -DREAL=float.
   Parameters and momenta stand in one array each: W1 (128x784), b1 (128), W2 (10x128), b2 (10). */

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifndef REAL
#define REAL double
#endif
typedef REAL real;

enum { I = 784, H = 128, O = 10, B = 8, R = 4, MOST = 64 }; /* MOST samples in a batch, at most */
enum { SIZE = H * I + H + O * H + O };

#define PARTS(p)                                                                                                       \
    real *restrict p##W1 = p, *restrict p##b1 = p##W1 + H * I;                                                         \
    real *restrict p##W2 = p##b1 + H, *restrict p##b2 = p##W2 + O * H

/* z, the logits of a sample, become its adjoints for the mean over n; the loss is returned, a right answer counted */
static double cross_entropy(real *restrict z, int64_t label, int64_t n, double *right)
{
    real m = z[0], sum = 0, at = z[label];
    int best = 0;
    for (int o = 1; o < O; o++)
        if (z[o] > m) m = z[o], best = o;
    for (int o = 0; o < O; o++) sum += z[o] = (real)exp(z[o] - m);
    for (int o = 0; o < O; o++) z[o] = (z[o] / sum - (o == label)) / n;
    *right += best == label;
    return m + log(sum) - at;
}

static void naive(const real *restrict X, const int64_t *restrict y, const int64_t *restrict order, int64_t n,
                  real *restrict p, real *restrict v, real lr, real momentum, double *restrict totals)
{
    static real g[SIZE];
    PARTS(p);
    PARTS(g);
    memset(g, 0, sizeof g);
    for (int64_t s = 0; s < n; s++) {
        const real *restrict x = X + order[s] * I;
        real h[H], z[O], dh[H];
        for (int j = 0; j < H; j++) {
            real a = pb1[j];
            for (int k = 0; k < I; k++) a += pW1[j * I + k] * x[k];
            h[j] = a > 0 ? a : 0;
        }
        for (int o = 0; o < O; o++) {
            real a = pb2[o];
            for (int j = 0; j < H; j++) a += pW2[o * H + j] * h[j];
            z[o] = a;
        }
        totals[0] += cross_entropy(z, y[order[s]], n, totals + 1);
        for (int j = 0; j < H; j++) dh[j] = 0;
        for (int o = 0; o < O; o++) {
            gb2[o] += z[o];
            for (int j = 0; j < H; j++) gW2[o * H + j] += z[o] * h[j], dh[j] += z[o] * pW2[o * H + j];
        }
        for (int j = 0; j < H; j++) {
            real d = h[j] > 0 ? dh[j] : 0;
            gb1[j] += d;
            for (int k = 0; k < I; k++) gW1[j * I + k] += d * x[k];
        }
    }
    for (int i = 0; i < SIZE; i++) {
        v[i] = momentum * v[i] + g[i];
        p[i] -= lr * v[i];
    }
}

static void blocked(const real *restrict X, const int64_t *restrict y, const int64_t *restrict order, int64_t n,
                    real *restrict p, real *restrict v, real lr, real momentum, double *restrict totals)
{
    static const real zeros[I];
    static real h[MOST][H], d[MOST][H], z[MOST][O];
    const real *x[MOST];
    PARTS(p);
    PARTS(v);
    int64_t up = (n + B - 1) / B * B; /* whole blocks; what is beyond n has inputs and adjoints of 0 */
    for (int64_t s = 0; s < up; s++) x[s] = s < n ? X + order[s] * I : zeros;

    for (int64_t s = 0; s < up; s += B)
        for (int j = 0; j < H; j += R) {
            real a[R][B] = {{0}};
            const real *restrict w = pW1 + j * I;
            for (int k = 0; k < I; k++)
                for (int r = 0; r < R; r++)
                    for (int i = 0; i < B; i++) a[r][i] += w[r * I + k] * x[s + i][k];
            for (int r = 0; r < R; r++)
                for (int i = 0; i < B; i++) h[s + i][j + r] = a[r][i] + pb1[j + r] > 0 ? a[r][i] + pb1[j + r] : 0;
        }
    for (int64_t s = 0; s < up; s++) {
        for (int o = 0; o < O; o++) {
            real a = pb2[o];
            for (int j = 0; j < H; j++) a += pW2[o * H + j] * h[s][j];
            z[s][o] = a;
        }
        if (s < n) totals[0] += cross_entropy(z[s], y[order[s]], n, totals + 1);
        else memset(z[s], 0, sizeof z[s]);
        for (int j = 0; j < H; j++) d[s][j] = 0;
        for (int o = 0; o < O; o++)
            for (int j = 0; j < H; j++) d[s][j] += z[s][o] * pW2[o * H + j];
        for (int j = 0; j < H; j++) d[s][j] = h[s][j] > 0 ? d[s][j] : 0;
    }
    for (int o = 0; o < O; o++) {
        real g[H] = {0}, gb = 0;
        for (int64_t s = 0; s < n; s++) {
            gb += z[s][o];
            for (int j = 0; j < H; j++) g[j] += z[s][o] * h[s][j];
        }
        for (int j = 0; j < H; j++) {
            vW2[o * H + j] = momentum * vW2[o * H + j] + g[j];
            pW2[o * H + j] -= lr * vW2[o * H + j];
        }
        vb2[o] = momentum * vb2[o] + gb;
        pb2[o] -= lr * vb2[o];
    }
    for (int j = 0; j < H; j += R) {
        real g[R][I] = {{0}}, gb[R] = {0}; /* 4 rows: they stay in the first-level cache */
        for (int64_t s = 0; s < up; s += B) {
            real c[R][B];
            for (int r = 0; r < R; r++)
                for (int i = 0; i < B; i++) gb[r] += c[r][i] = d[s + i][j + r];
            for (int k = 0; k < I; k++)
                for (int r = 0; r < R; r++) {
                    real t = g[r][k];
                    for (int i = 0; i < B; i++) t += c[r][i] * x[s + i][k];
                    g[r][k] = t;
                }
        }
        for (int r = 0; r < R; r++) {
            for (int k = 0; k < I; k++) {
                vW1[(j + r) * I + k] = momentum * vW1[(j + r) * I + k] + g[r][k];
                pW1[(j + r) * I + k] -= lr * vW1[(j + r) * I + k];
            }
            vb1[j + r] = momentum * vb1[j + r] + gb[r];
            pb1[j + r] -= lr * vb1[j + r];
        }
    }
}

/* n samples in batches of `batch` (MOST at most), the last one smaller; adds losses times batch size to totals[0] */
#define EPOCH(name, step)                                                                                              \
    void name(const real *X, const int64_t *y, const int64_t *order, int64_t n, int64_t batch, real *p, real *v,       \
              real lr, real momentum, double *totals)                                                                  \
    {                                                                                                                  \
        for (int64_t s = 0; s < n; s += batch)                                                                         \
            step(X, y, order + s, n - s < batch ? n - s : batch, p, v, lr, momentum, totals);                          \
    }

EPOCH(naive_epoch, naive)
EPOCH(blocked_epoch, blocked)
