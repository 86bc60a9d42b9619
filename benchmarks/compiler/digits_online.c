/* A 64-32-10 network learns the digits one at a time: forward, cross entropy, backward, SGD with momentum.

   The plain loops that one writes by hand, with the update in the loop that makes the gradient. It is what
   digits_online.py compares milligrad with, and computes what the Trainer computes: the sums of losses and of right
   answers, too. Parameters and momenta stand in one array each: W1 (32x64), b1 (32), W2 (10x32), b2 (10). */

#include <math.h>
#include <stdint.h>

enum { I = 64, H = 32, O = 10 };

/* rows order[0..n) of X (I numbers each), of the classes y; totals[0] += the losses, totals[1] += the right answers */
void epoch(const double *restrict X, const int64_t *restrict y, const int64_t *restrict order, int64_t n,
           double *restrict p, double *restrict v, double lr, double momentum, double *restrict totals)
{
    double *restrict W1 = p, *restrict b1 = W1 + H * I, *restrict W2 = b1 + H, *restrict b2 = W2 + O * H;
    double *restrict vW1 = v, *restrict vb1 = vW1 + H * I, *restrict vW2 = vb1 + H, *restrict vb2 = vW2 + O * H;
    double loss = 0, right = 0;

    for (int64_t s = 0; s < n; s++) {
        const double *restrict x = X + order[s] * I;
        int64_t t = y[order[s]];
        double h[H], z[O], e[O], dh[H];

        for (int j = 0; j < H; j++) {
            double a = b1[j];
            for (int k = 0; k < I; k++) a += W1[j * I + k] * x[k];
            h[j] = a > 0 ? a : 0;
        }
        double m = 0, sum = 0;
        int best = 0;
        for (int o = 0; o < O; o++) {
            double a = b2[o];
            for (int j = 0; j < H; j++) a += W2[o * H + j] * h[j];
            z[o] = a;
            if (o == 0 || a > m) m = a, best = o;
        }
        for (int o = 0; o < O; o++) sum += e[o] = exp(z[o] - m);
        loss += m + log(sum) - z[t];
        right += best == t;
        for (int o = 0; o < O; o++) e[o] = e[o] / sum - (o == t);

        for (int j = 0; j < H; j++) dh[j] = 0;
        for (int o = 0; o < O; o++)
            for (int j = 0; j < H; j++) dh[j] += W2[o * H + j] * e[o];
        for (int j = 0; j < H; j++) dh[j] = h[j] > 0 ? dh[j] : 0;

        for (int o = 0; o < O; o++) {
            for (int j = 0; j < H; j++) {
                double u = vW2[o * H + j] = momentum * vW2[o * H + j] + e[o] * h[j];
                W2[o * H + j] -= lr * u;
            }
            b2[o] -= lr * (vb2[o] = momentum * vb2[o] + e[o]);
        }
        for (int j = 0; j < H; j++) {
            for (int k = 0; k < I; k++) {
                double u = vW1[j * I + k] = momentum * vW1[j * I + k] + dh[j] * x[k];
                W1[j * I + k] -= lr * u;
            }
            b1[j] -= lr * (vb1[j] = momentum * vb1[j] + dh[j]);
        }
    }
    totals[0] += loss;
    totals[1] += right;
}
